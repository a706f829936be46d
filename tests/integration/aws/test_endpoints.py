"""Endpoints on SageMaker: made, updated, compared with what runs, and taken back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hosting_cases import (
    AWS,
    DIGEST,
    HOSTING,
    HostingService,
    model_artifact,
    score_of,
    served_strategy,
)
from trademl.aws.endpoint_plan import EndpointPlan, plan_endpoint
from trademl.aws.endpoints import deploy_endpoint
from trademl.errors import CloudError, ConfigError
from trademl.serve.serving_artifact import serving_artifact
from trademl.store.artifacts import ArtifactStore

SCORE = 1 / (1 + math.exp(-0.25))  # of the mean row: only the bias is left


@pytest.fixture
def alarm(aws: str) -> None:
    import boto3

    boto3.client("cloudwatch", region_name=AWS.region).put_metric_alarm(
        AlarmName="too-many-errors", MetricName="m", Namespace="n", Period=60,
        EvaluationPeriods=1, Threshold=1.0, ComparisonOperator="GreaterThanThreshold",
        Statistic="Sum",
    )  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> EndpointPlan:
    return plan_endpoint(model_artifact(tmp_path), AWS, HOSTING, strategy="es", mode="live")


@pytest.fixture
def other(tmp_path: Path) -> EndpointPlan:
    model = model_artifact(tmp_path, "model-000000000002", bias=0.75)
    return plan_endpoint(model, AWS, HOSTING, strategy="es", mode="live")


@contextmanager
def running(
    service: HostingService, aws: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HostingService]:
    """Send SageMaker's operations to the service, and S3 and CloudWatch to moto."""
    with service.server.running() as server, monkeypatch.context() as patch:
        for name in ("SAGEMAKER", "SAGEMAKER_RUNTIME"):
            patch.setenv(f"AWS_ENDPOINT_URL_{name}", server.url)
        yield service


def deployed(plan: EndpointPlan):
    return deploy_endpoint(plan, sleep=lambda _: None)


@pytest.mark.usefixtures("alarm")
def test_a_new_endpoint_runs_the_model_that_was_asked_for(aws, monkeypatch, plan):
    with running(HostingService(SCORE), aws, monkeypatch) as service:
        found = deployed(plan)

    assert (found.endpoint, found.change) == ("trademl-es", "created")
    assert found.variants[0]["image"].endswith(DIGEST)
    assert found.variants[0]["model"] == plan.model.artifact_id
    assert found.score == pytest.approx(SCORE)
    assert list(service.models) == [plan.model.name]


@pytest.mark.usefixtures("alarm")
def test_the_archive_is_in_the_bucket_before_the_model_is_made(aws, monkeypatch, plan):
    import boto3

    with running(HostingService(SCORE), aws, monkeypatch):
        deployed(plan)

    bucket, _, key = plan.model.uri.removeprefix("s3://").partition("/")
    s3 = boto3.client("s3", region_name=AWS.region)
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == plan.model.archive.read_bytes()


@pytest.mark.usefixtures("alarm")
def test_the_same_command_again_changes_nothing(aws, monkeypatch, plan):
    with running(HostingService(SCORE), aws, monkeypatch) as service:
        deployed(plan)
        again = deployed(plan)

    assert again.change == "unchanged"
    assert len(service.server.requests("CreateEndpoint")) == 1
    assert not service.server.requests("UpdateEndpoint")


@pytest.mark.usefixtures("alarm")
def test_another_model_moves_traffic_step_by_step_watched_by_alarms(aws, monkeypatch, plan, other):
    with running(HostingService(SCORE), aws, monkeypatch) as service:
        deployed(plan)
        service.score = 1 / (1 + math.exp(-0.75))
        found = deployed(other)

    (update,) = service.server.requests("UpdateEndpoint")
    policy = update["DeploymentConfig"]
    routing = policy["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert found.change == "updated"
    assert routing["CanarySize"] == {"Type": "CAPACITY_PERCENT", "Value": 10}
    assert policy["AutoRollbackConfiguration"]["Alarms"] == [{"AlarmName": "too-many-errors"}]


@pytest.mark.usefixtures("alarm")
def test_an_update_that_sagemaker_takes_back_is_an_error_and_leaves_nothing(
    aws, monkeypatch, plan, other
):
    service = HostingService(SCORE, lambda name: "RolledBack" if name == other.config_name else "")
    with running(service, aws, monkeypatch):
        deployed(plan)
        with pytest.raises(CloudError, match="took the update of trademl-es back.*too-many-errors"):
            deployed(other)

    assert list(service.configs) == [plan.config_name]
    assert list(service.models) == [plan.model.name]


@pytest.mark.usefixtures("alarm")
def test_an_endpoint_that_does_not_come_up_is_deleted_with_all_that_was_made(
    aws, monkeypatch, plan
):
    service = HostingService(SCORE, lambda _: "Failed")
    with (
        running(service, aws, monkeypatch),
        pytest.raises(CloudError, match="ended as Failed: no answer to ping"),
    ):
        deployed(plan)

    assert not service.endpoints
    assert not service.configs
    assert not service.models


@pytest.mark.usefixtures("alarm")
def test_an_update_that_scores_otherwise_goes_back(aws, monkeypatch, plan, other):
    with running(HostingService(SCORE), aws, monkeypatch) as service:
        deployed(plan)
        with pytest.raises(CloudError, match="serves another model; everything"):
            deployed(other)

    assert service.endpoints["trademl-es"]["config"] == plan.config_name
    assert list(service.configs) == [plan.config_name]


@pytest.mark.usefixtures("alarm")
def test_an_image_of_another_digest_is_refused(aws, monkeypatch, tmp_path):
    image = f"{HOSTING.image.partition(':')[0]}@sha256:{'cd' * 32}"
    pinned = replace(HOSTING, image=image)
    plan = plan_endpoint(model_artifact(tmp_path), AWS, pinned, strategy="es", mode="live")
    service = HostingService(SCORE)
    with (
        running(service, aws, monkeypatch),
        pytest.raises(CloudError, match="another digest of main runs"),
    ):
        deployed(plan)

    assert not service.endpoints


@pytest.mark.usefixtures("alarm")
def test_a_shadow_stands_beside_the_live_model_whose_answers_count(aws, monkeypatch, tmp_path):
    live = model_artifact(tmp_path)
    refused = model_artifact(tmp_path, "model-000000000002", bias=0.75)
    plan = plan_endpoint(refused, AWS, HOSTING, strategy="es", mode="shadow", live=live)
    with running(HostingService(SCORE), aws, monkeypatch) as service:
        found = deployed(plan)

    config = service.configs[plan.config_name]
    assert [v["model"] for v in found.variants] == [live.id, refused.id]
    assert (
        config["ProductionVariants"][0]["ModelName"]
        != config["ShadowProductionVariants"][0]["ModelName"]
    )


def test_a_shadow_without_a_live_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="deploy the champion first"):
        plan_endpoint(model_artifact(tmp_path), AWS, HOSTING, strategy="es", mode="shadow")


def test_an_alarm_that_does_not_exist_is_refused_before_anything_is_made(aws, monkeypatch, plan):
    service = HostingService(SCORE)
    with (
        running(service, aws, monkeypatch),
        pytest.raises(CloudError, match="there is no alarm too-many-errors"),
    ):
        deployed(plan)

    assert not service.server.sent


@pytest.fixture
def climbing(tmp_path: Path) -> EndpointPlan:
    """Return the plan of a ladder of two models."""
    served = served_strategy(tmp_path, "es", 0.5, 0.25)
    store = ArtifactStore(tmp_path)
    smallest = store.get(served.ladder[1].id)
    return plan_endpoint(
        smallest, AWS, HOSTING, strategy="es", mode="live",
        describe=lambda model, mode: (served, serving_artifact([served], store)),
    )  # fmt: skip


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize(
    ("bias", "score", "reason", "said"),
    [
        (0.5, 0.5, "normal", ""),
        (0.25, 0.25, "load", ""),
        (0.25, 0.25, "busy", "does not come up, the container's log says why"),
        (0.5, 0.25, "normal", "it serves another model"),
        (0.9, 0.9, "normal", "it serves another model"),
    ],
)
def test_the_biggest_model_of_a_ladder_must_answer(
    aws, monkeypatch, climbing, bias, score, reason, said
):
    service = HostingService(score_of(score))
    service.said = {"model": f"model-{round(bias * 1e6):012x}", "reason": reason}
    with running(service, aws, monkeypatch):
        if not said:
            assert deployed(climbing).score == pytest.approx(score_of(score))
            return
        with pytest.raises(CloudError, match=said):
            deployed(climbing)

    assert service.endpoints == {}
