"""Several strategies at one multi-model endpoint: every model asked, all taken back together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import numpy as np
import pytest

from aws_cases import BUCKET, REGION
from hosting_cases import (
    AWS,
    HOSTING,
    HostingService,
    linear_model,
    model_artifact,
    score_of,
    served_strategy,
)
from multi_model_cases import MultiModelRuntime
from trademl.aws.endpoint_plan import EndpointPlan, plan_endpoint
from trademl.aws.endpoints import deploy_endpoint
from trademl.aws.invoking import predict_on_endpoint
from trademl.aws.multi_model_plan import plan_multi_model
from trademl.errors import CloudError
from trademl.serve.freshness import Freshness
from trademl.store.artifacts import ArtifactStore

ROWS = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]], np.float32)
QUIET = replace(HOSTING, alarms=())


@pytest.fixture
def service() -> HostingService:
    return HostingService(0.0)  # invocations go to real containers


@pytest.fixture
def runtime(aws, monkeypatch, service, tmp_path) -> Iterator[MultiModelRuntime]:
    """Send SageMaker's operations to the service, invocations to containers, the rest to moto."""
    found = MultiModelRuntime(service, tmp_path / "machines")
    with service.server.running() as server, found.running() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def planned(store: Path, hosting=QUIET, **biases: float) -> EndpointPlan:
    """Return the plan of strategies whose models have these biases."""
    strategies = [served_strategy(store, name, bias) for name, bias in biases.items()]
    return plan_multi_model(strategies, AWS, hosting, ArtifactStore(store))


def deployed(plan: EndpointPlan):
    return deploy_endpoint(plan, sleep=lambda _: None)


def scores(plan: EndpointPlan, target: str) -> list[float]:
    found = predict_on_endpoint(plan.endpoint, ROWS, REGION, model=target)
    return found.score_N.tolist()


def expected(bias: float) -> list[float]:
    return linear_model(bias).scores(ROWS).tolist()


def keys(plan: EndpointPlan) -> list[str]:
    """Return the keys below the plan's prefix."""
    prefix = plan.model.uri.removeprefix(f"s3://{BUCKET}/")
    found = boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"].removeprefix(prefix) for entry in found.get("Contents", [])]


def put(plan: EndpointPlan, name: str, content: bytes) -> None:
    key = plan.model.uri.removeprefix(f"s3://{BUCKET}/") + name
    boto3.client("s3", region_name=REGION).put_object(Bucket=BUCKET, Key=key, Body=content)


def test_each_strategy_is_answered_by_its_own_model(runtime, service, store):
    plan = planned(store, btc=0.5, alice=0.75)
    found = deployed(plan)

    assert (found.endpoint, found.change) == ("trademl-serving", "created")
    assert found.scores == {
        "btc": pytest.approx(score_of(0.5)), "alice": pytest.approx(score_of(0.75))
    }  # fmt: skip
    assert runtime.asked == [
        ("trademl-serving", "btc.tar.gz"), ("trademl-serving", "alice.tar.gz")
    ]  # fmt: skip
    assert sorted(keys(plan)) == ["alice.tar.gz", "btc.tar.gz"]
    assert scores(plan, "btc.tar.gz") == pytest.approx(expected(0.5))
    assert scores(plan, "alice.tar.gz") == pytest.approx(expected(0.75))


def test_the_model_is_a_prefix_in_multi_model_mode(runtime, service, store):
    plan = planned(store, btc=0.5, alice=0.75)
    deployed(plan)

    (model,) = service.models.values()
    container = model["PrimaryContainer"]
    assert container["Mode"] == "MultiModel"
    assert container["ModelDataUrl"] == f"{AWS.uri('multi-model', plan.model.release)}/"


@pytest.mark.usefixtures("runtime")
def test_an_answer_names_the_model_and_its_rules_hold(store):
    fresh = Freshness(needs_feature_time=True)
    strategies = [
        served_strategy(store, "btc", 0.5),
        served_strategy(store, "alice", 0.75, freshness=fresh),
    ]
    plan = plan_multi_model(strategies, AWS, QUIET, ArtifactStore(store))
    deployed(plan)

    found = predict_on_endpoint(plan.endpoint, ROWS, REGION, model="btc.tar.gz")
    assert found.model_id == strategies[0].ladder[0].id
    with pytest.raises(CloudError, match="answered 422: no decision: the features have no time"):
        predict_on_endpoint(plan.endpoint, ROWS, REGION, model="alice.tar.gz")


def test_the_same_command_again_changes_nothing(runtime, service, store):
    deployed(planned(store, btc=0.5, alice=0.75))
    again = deployed(planned(store, btc=0.5, alice=0.75))

    assert again.change == "unchanged"
    assert not service.server.requests("UpdateEndpoint")


def test_where_one_archive_changed_no_loaded_model_answers_under_its_name(runtime, service, store):
    first, second = planned(store, btc=0.5, alice=0.75), planned(store, btc=0.5, alice=0.25)
    deployed(first)
    assert scores(first, "alice.tar.gz") == pytest.approx(expected(0.75))  # it is loaded

    found = deployed(second)

    assert found.change == "updated"
    assert scores(second, "alice.tar.gz") == pytest.approx(expected(0.25))
    assert scores(second, "btc.tar.gz") == pytest.approx(expected(0.5))
    assert sorted(keys(first)) == ["alice.tar.gz", "btc.tar.gz"]  # for a way back


def test_an_update_moves_traffic_step_by_step(runtime, service, store):
    deployed(planned(store, btc=0.5, alice=0.75))
    deployed(planned(store, btc=0.5, alice=0.25))

    (update,) = service.server.requests("UpdateEndpoint")
    routing = update["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["CanarySize"] == {"Type": "CAPACITY_PERCENT", "Value": 10}


def test_one_wrong_model_takes_all_of_them_back(runtime, service, store):
    first, second = planned(store, btc=0.5, alice=0.75), planned(store, btc=0.4, alice=0.25)
    deployed(first)
    runtime.instead = {"alice.tar.gz": "btc.tar.gz"}

    with pytest.raises(
        CloudError, match=r"trademl-serving \(alice.tar.gz\) answers by model-"
    ) as e:
        deployed(second)

    assert "everything that this command had made was taken back" in str(e.value)
    assert service.endpoints["trademl-serving"]["config"] == first.config_name
    assert list(service.configs) == [first.config_name]
    assert list(service.models) == [first.model.name]
    runtime.instead = {}
    assert scores(first, "btc.tar.gz") == pytest.approx(expected(0.5))


def test_a_new_endpoint_with_a_wrong_model_is_deleted(runtime, service, store):
    runtime.instead = {"alice.tar.gz": "btc.tar.gz"}
    with pytest.raises(CloudError, match="it serves another model"):
        deployed(planned(store, btc=0.4, alice=0.25))

    assert (service.endpoints, service.configs, service.models) == ({}, {}, {})


def test_an_update_that_an_alarm_takes_back_leaves_the_first_release(
    aws, monkeypatch, tmp_path, store
):
    first, second = planned(store, btc=0.5, alice=0.75), planned(store, btc=0.5, alice=0.25)
    service = HostingService(
        0.0, lambda name: "RolledBack" if name == second.config_name else "InService"
    )
    runtime = MultiModelRuntime(service, tmp_path / "machines")
    with service.server.running() as server, runtime.running() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        deployed(first)
        with pytest.raises(CloudError, match="took the update of trademl-serving back"):
            deployed(second)
        kept = scores(first, "alice.tar.gz")

    assert kept == pytest.approx(expected(0.75))
    assert list(service.models) == [first.model.name]


def test_an_archive_that_was_written_over_is_seen_although_the_old_model_still_answers(
    runtime, service, store
):
    plan = planned(store, btc=0.5, alice=0.75)
    deployed(plan)
    put(plan, "alice.tar.gz", planned(store, alice=0.25).model.archives[0].archive.read_bytes())

    with pytest.raises(CloudError, match=r"alice.tar.gz has SHA-256 \w{12}, its manifest lists"):
        deployed(plan)

    assert service.endpoints["trademl-serving"]["config"] == plan.config_name


def test_an_archive_that_is_none_of_the_release_is_refused(runtime, store):
    plan = planned(store, btc=0.5, alice=0.75)
    deployed(plan)
    put(plan, "stranger.tar.gz", b"x")

    with pytest.raises(CloudError, match=r"/stranger.tar.gz is none of this release"):
        deployed(plan)


def test_an_archive_that_is_gone_is_named(runtime, store):
    plan = planned(store, btc=0.5, alice=0.75)
    deployed(plan)
    key = plan.model.uri.removeprefix(f"s3://{BUCKET}/") + "btc.tar.gz"
    boto3.client("s3", region_name=REGION).delete_object(Bucket=BUCKET, Key=key)

    with pytest.raises(CloudError, match=r"/btc.tar.gz is gone"):
        deployed(plan)


def test_a_model_that_is_still_being_loaded_is_waited_for(runtime, store):
    runtime.not_ready = 5
    found = deployed(planned(store, btc=0.5, alice=0.75))

    assert found.scores["btc"] == pytest.approx(score_of(0.5))
    assert runtime.not_ready == 0


def test_a_model_that_is_never_loaded_is_an_error_that_names_it(runtime, service, store):
    runtime.not_ready = 10**6
    with pytest.raises(CloudError, match=r"\(btc.tar.gz\) has not loaded the model within 400 s"):
        deployed(planned(store, btc=0.5, alice=0.75))

    assert service.endpoints == {}


def test_a_model_that_is_not_there_is_named_in_what_sagemaker_says(runtime, store):
    plan = planned(store, btc=0.5, alice=0.75)
    deployed(plan)

    with pytest.raises(CloudError, match=r"\(fx.tar.gz\) cannot be asked: Failed to download"):
        scores(plan, "fx.tar.gz")


def test_several_models_do_not_replace_one_whose_callers_name_none(runtime, service, store):
    named = replace(QUIET, endpoint="trademl-es")
    service.score = score_of(0.25)
    alone = plan_endpoint(model_artifact(store), AWS, named, strategy="es", mode="live")
    service.models[alone.model.name] = alone.model_request(alone.model)
    service.configs[alone.config_name] = alone.config_request
    service.endpoints["trademl-es"] = {"state": "InService", "config": alone.config_name}

    with pytest.raises(CloudError, match="is an endpoint of one model, whose callers name no mode"):
        deployed(planned(store, named, btc=0.5, alice=0.75))

    assert service.endpoints["trademl-es"]["config"] == alone.config_name


def test_one_model_does_not_replace_several_whose_callers_name_theirs(runtime, service, store):
    named = replace(QUIET, endpoint="trademl-es")
    shared = planned(store, named, btc=0.5, alice=0.75)
    deployed(shared)
    alone = plan_endpoint(model_artifact(store), AWS, named, strategy="es", mode="live")

    with pytest.raises(CloudError, match="is a multi-model endpoint, whose callers name their mod"):
        deployed(alone)

    assert service.endpoints["trademl-es"]["config"] == shared.config_name
