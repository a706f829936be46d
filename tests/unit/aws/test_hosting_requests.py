"""Requests of endpoints and transform jobs, held against botocore's model of the API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.session
import numpy as np
import pytest
from botocore.validate import ParamValidator

from hosting_cases import AWS, HOSTING, model_artifact
from trademl.aws.endpoint_plan import hourly_cost, plan_endpoint
from trademl.aws.hosting import HostingConfig
from trademl.aws.prices import load_prices
from trademl.aws.transform import estimate_transform, plan_transform
from trademl.errors import ConfigError
from trademl.etl.recordio import write_recordio

VPC = replace(AWS, subnets=("subnet-1",), security_groups=("sg-1",), volume_kms_key="k")


@pytest.fixture(scope="module")
def sagemaker() -> Any:
    return botocore.session.get_session().get_service_model("sagemaker")


def faults(sagemaker: Any, requests: list[dict[str, Any]]) -> str:
    """Return what botocore finds wrong; names that it does not know are found by hand."""
    found = []
    for request in requests:
        ((operation, parameters),) = request.items()
        shape = sagemaker.operation_model(operation).input_shape
        found.append(ParamValidator().validate(parameters, shape).generate_report())
        found.extend(unknown(parameters, shape))
    return "".join(found)


def unknown(value: Any, shape: Any, where: str = "") -> list[str]:
    """Return names that a shape does not have, and values that its enumeration does not."""
    if shape.type_name == "structure":
        found = [f"{where}.{name}" for name in value if name not in shape.members]
        for name, inner in value.items():
            if name in shape.members:
                found += unknown(inner, shape.members[name], f"{where}.{name}")
        return found
    if shape.type_name == "list":
        return [f for one in value for f in unknown(one, shape.member, where)]
    is_listed = not getattr(shape, "enum", None) or value in shape.enum
    return [] if is_listed else [f"{where}={value}"]


@pytest.mark.parametrize("routing", ["canary", "linear", "all_at_once"])
@pytest.mark.parametrize("mode", ["live", "shadow"])
@pytest.mark.parametrize("aws", [AWS, VPC])
def test_requests_of_an_endpoint_are_those_of_the_api(sagemaker, tmp_path, routing, mode, aws):
    live = model_artifact(tmp_path, "model-000000000002")
    hosting = replace(HOSTING, routing=routing)
    plan = plan_endpoint(
        model_artifact(tmp_path), aws, hosting, strategy="es", mode=mode, live=live
    )

    assert faults(sagemaker, plan.requests) == ""


def test_a_misspelt_request_would_be_seen(sagemaker, tmp_path):
    plan = plan_endpoint(model_artifact(tmp_path), AWS, HOSTING, strategy="es", mode="live")
    wrong = {"CreateEndpoint": {**plan.create_request, "EndpointConfig": "x"}}

    assert "EndpointConfig" in faults(sagemaker, [wrong])


def rows_file(folder: Path, name: str = "rows.csv") -> Path:
    path = folder / name
    if path.suffix == ".recordio":
        write_recordio(path, np.ones((2, 3), np.float32))
    else:
        path.write_text("1,2,3\n")
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.recordio", "rows.csv.gz"])
@pytest.mark.parametrize("aws", [AWS, VPC])
def test_requests_of_a_transform_job_are_those_of_the_api(sagemaker, tmp_path, name, aws):
    path = rows_file(tmp_path, name)
    plan = plan_transform(model_artifact(tmp_path), [path], aws, HOSTING, strategy="es")

    assert faults(sagemaker, plan.requests) == ""


def test_csv_is_cut_at_lines_and_recordio_at_records(tmp_path):
    splits = {}
    for name in ("rows.csv", "rows.recordio"):
        path = rows_file(tmp_path, name)
        plan = plan_transform(model_artifact(tmp_path), [path], AWS, HOSTING, strategy="es")
        splits[name] = plan.request["TransformInput"]["SplitType"]

    assert splits == {"rows.csv": "Line", "rows.recordio": "RecordIO"}


def test_rows_are_joined_to_csv_only(tmp_path):
    path = rows_file(tmp_path, "rows.recordio")
    with pytest.raises(ConfigError, match="rows of text only"):
        plan_transform(
            model_artifact(tmp_path), [path], AWS, HOSTING, strategy="es", join_source=True
        )


def test_other_rows_are_another_job(tmp_path):
    model, path = model_artifact(tmp_path), rows_file(tmp_path)
    first = plan_transform(model, [path], AWS, HOSTING, strategy="es").name
    path.write_text("1,2,4\n")

    assert plan_transform(model, [path], AWS, HOSTING, strategy="es").name != first


def test_the_worst_case_of_a_transform_job_is_machines_times_limit(tmp_path):
    aws = replace(AWS, region="us-east-1")
    hosting = replace(HOSTING, instance_count=2, max_runtime_s=1800)
    plan = plan_transform(
        model_artifact(tmp_path), [rows_file(tmp_path)], aws, hosting, strategy="es"
    )

    # two ml.m5.large for half an hour at 0.115 USD
    assert estimate_transform(plan, load_prices("us-east-1")).usd == pytest.approx(0.115)


def test_an_hour_of_a_shadowed_endpoint_counts_both_variants(tmp_path):
    aws = replace(AWS, region="us-east-1")
    live = model_artifact(tmp_path, "model-000000000002")
    plan = plan_endpoint(
        model_artifact(tmp_path), aws, HOSTING, strategy="es", mode="shadow", live=live
    )

    assert hourly_cost(plan, load_prices("us-east-1")).startswith("0.23 USD an hour, 167.90 USD")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_percent": 60}, "step_percent is 60"),
        ({"routing": "linear", "step_percent": 5}, "expected from 10 to 50"),
        ({"max_payload_mb": 50, "max_concurrent": 3}, "is 150"),
        ({"alarms": tuple("abcdefghijk")}, "11 alarms"),
    ],
)
def test_settings_that_sagemaker_would_refuse_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        HostingConfig(**changes)


def test_workers_and_data_capture_are_asked_for_in_the_apis_words(sagemaker, tmp_path):
    model = model_artifact(tmp_path)
    plain = plan_endpoint(model, AWS, HOSTING, strategy="es", mode="live")
    hosting = replace(HOSTING, workers=4, capture_percent=20)
    plan = plan_endpoint(model, AWS, hosting, strategy="es", mode="live")

    container = plan.model_request(plan.model)["PrimaryContainer"]
    capture = plan.config_request["DataCaptureConfig"]
    assert faults(sagemaker, plan.requests) == ""
    assert container["Environment"]["SAGEMAKER_MODEL_SERVER_WORKERS"] == "4"
    assert (capture["InitialSamplingPercentage"], capture["DestinationS3Uri"]) == (
        20, AWS.uri("capture"),
    )  # fmt: skip
    assert "DataCaptureConfig" not in plain.config_request
    assert plan.config_name != plain.config_name
    assert plan.model.name != plain.model.name
