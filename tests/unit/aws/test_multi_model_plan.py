"""A multi-model endpoint's requests and names, and what such an endpoint cannot be."""

from __future__ import annotations

from dataclasses import replace

import botocore.session
import pytest
from botocore.validate import ParamValidator

from hosting_cases import AWS, HOSTING, served_strategy
from trademl.aws.endpoint_plan import hourly_cost
from trademl.aws.multi_model_plan import plan_multi_model
from trademl.aws.prices import load_prices
from trademl.errors import ConfigError, StoreError
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.shares import Quota
from trademl.store.artifacts import ArtifactStore

VPC = replace(AWS, subnets=("subnet-1",), security_groups=("sg-1",), volume_kms_key="k")


def planned(root, *strategies, aws=AWS, **hosting):
    strategies = strategies or (
        served_strategy(root, "btc", 0.5),
        served_strategy(root, "alice", 0.75),
    )
    return plan_multi_model(strategies, aws, replace(HOSTING, **hosting), ArtifactStore(root))


@pytest.mark.parametrize("aws", [AWS, VPC])
@pytest.mark.parametrize("workers", [1, 4])
def test_requests_are_those_of_the_api(tmp_path, aws, workers):
    service = botocore.session.get_session().get_service_model("sagemaker")
    plan = planned(tmp_path, aws=aws, workers=workers)
    said = ""
    for request in plan.requests:
        ((operation, parameters),) = request.items()
        shape = service.operation_model(operation).input_shape
        said += ParamValidator().validate(parameters, shape).generate_report()
        assert set(parameters) <= set(shape.members)
    container = service.operation_model("CreateModel").input_shape.members["PrimaryContainer"]
    asked = plan.requests[0]["CreateModel"]["PrimaryContainer"]

    assert said == ""
    assert set(asked) <= set(container.members)
    assert asked["Mode"] in container.members["Mode"].enum
    cache = container.members["MultiModelConfig"].members["ModelCacheSetting"]
    assert asked["MultiModelConfig"]["ModelCacheSetting"] in cache.enum


def test_each_strategy_is_an_archive_of_its_name_below_one_prefix(tmp_path):
    model = planned(tmp_path).model

    assert list(model.sent) == ["btc.tar.gz", "alice.tar.gz"]
    assert model.uri.endswith(f"/multi-model/{model.release}/")
    assert model.folder == model.uri[:-1]


@pytest.mark.parametrize(
    "changed",
    [
        lambda root: served_strategy(root, "alice", 0.25),
        lambda root: served_strategy(root, "alice", 0.75, policy=LadderPolicy(deadline_ms=5.0)),
        lambda root: served_strategy(root, "alice", 0.75, freshness=Freshness(max_spread=5.0)),
        lambda root: served_strategy(root, "alison", 0.75),
    ],
    ids=["model", "ladder", "freshness", "name"],
)
def test_a_change_of_one_strategy_is_another_prefix_model_and_configuration(tmp_path, changed):
    before = planned(tmp_path)
    after = planned(tmp_path, served_strategy(tmp_path, "btc", 0.5), changed(tmp_path))

    for name in ("uri", "name"):
        assert getattr(after.model, name) != getattr(before.model, name)
    assert after.config_name != before.config_name
    assert after.endpoint == before.endpoint


def test_two_strategies_with_one_model_are_two_archives(tmp_path):
    model = planned(
        tmp_path, served_strategy(tmp_path, "btc", 0.5), served_strategy(tmp_path, "alice", 0.5)
    ).model

    assert len(set(model.digests.values())) == 2


def test_an_hour_is_that_of_one_machine_however_many_strategies_there_are(tmp_path):
    aws = replace(AWS, region="us-east-1")
    plan = planned(tmp_path, aws=aws)

    # an ml.m5.large at 0.115 USD
    assert hourly_cost(plan, load_prices("us-east-1")).startswith("0.115 USD an hour")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (lambda r: served_strategy(r, "es", 0.5, 0.25), "es has 2 rungs: a multi-model endpoint"),
        (lambda r: served_strategy(r, "es", quota=Quota(share=0.5)), "es has a quota"),
        (lambda r: served_strategy(r, "es", mode="shadow"), "es: model-.* is no champion"),
        (lambda r: served_strategy(r, "a/b"), "'a/b' would be a/b.tar.gz in S3"),
        (lambda r: served_strategy(r, "btc"), "two strategies would be served as btc"),
    ],
    ids=["ladder", "quota", "shadow", "name", "twice"],
)
def test_a_strategy_that_it_cannot_serve_as_its_file_says_is_refused(tmp_path, strategy, message):
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, served_strategy(tmp_path, "btc", 0.5), strategy(tmp_path))


def test_a_model_on_a_graphics_card_is_refused(tmp_path):
    es = served_strategy(tmp_path, "es")
    es = replace(es, ladder=(replace(es.ladder[0], device="cuda"),))
    with pytest.raises(ConfigError, match="es has device 'cuda'"):
        planned(tmp_path, es)


@pytest.mark.parametrize(
    ("hosting", "message"),
    [
        ({"capture_percent": 5}, "hosting.capture_percent is 5"),
        ({"instance_type": "ml.g5.xlarge"}, "ml.g5.xlarge: on accelerators .* Triton only"),
        ({"instance_type": "ml.inf2.xlarge"}, "Triton only"),
        ({"image": ""}, "lacks image"),
    ],
)
def test_settings_that_it_cannot_have_are_refused(tmp_path, hosting, message):
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, **hosting)


def test_a_damaged_archive_is_refused_before_anything_is_sent(tmp_path):
    archive = planned(tmp_path).model.archives[0].archive
    archive.chmod(0o644)
    archive.write_bytes(archive.read_bytes()[:-1] + b"\xff")  # as long as before

    with pytest.raises(StoreError, match="its manifest lists"):
        planned(tmp_path)
