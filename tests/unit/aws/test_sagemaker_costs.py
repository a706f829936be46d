"""Worst cases and budgets: what a job may cost is known before it is started."""

from __future__ import annotations

import pytest

from aws_cases import BUCKET, ROLE, STATIC, make_dataset, seed_tuning
from trademl.aws.budget import check_budget, worst_case
from trademl.aws.plan import plan_training, plan_tuning
from trademl.aws.prices import FILE, PriceTable, load_prices
from trademl.aws.settings import AwsConfig
from trademl.errors import CloudError, StoreError
from trademl.store.artifacts import ArtifactStore

PRICES = PriceTable("us-east-1", {"ml.m5.large": 0.115}, "2026-08-11", "test")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(ArtifactStore(tmp_path_factory.mktemp("artifacts")))


def tuning_plan(dataset, limits=None, **changes):
    config = AwsConfig(region="us-east-1", role_arn=ROLE, bucket=BUCKET, **changes)
    job = seed_tuning(**({"ResourceLimits": limits} if limits else {}))
    return plan_tuning(dataset, job, config, seed=1)


def test_worst_case_is_every_job_on_every_machine_to_its_limit(dataset):
    # 10 jobs x 2 machines x half an hour x 0.115 USD = 1.15 USD
    plan = tuning_plan(dataset, max_runtime_s=1800, instance_count=2)
    assert worst_case(plan, PRICES).usd == pytest.approx(1.15)


def test_spot_is_no_discount(dataset):
    plans = [tuning_plan(dataset, spot=spot) for spot in (False, True)]
    assert worst_case(plans[0], PRICES).usd == worst_case(plans[1], PRICES).usd


def test_a_limit_of_the_whole_search_bounds_it(dataset):
    limits = {
        "MaxNumberOfTrainingJobs": 100, "MaxParallelTrainingJobs": 2, "MaxRuntimeInSeconds": 3480,
    }  # fmt: skip
    # two at a time for 3480 s, and 120 s for the last two to stop: 2 hours
    assert worst_case(tuning_plan(dataset, limits), PRICES).hours == pytest.approx(2.0)


def test_a_grid_counts_its_cells(dataset):
    ranges = {"CategoricalParameterRanges": [{"Name": "use_bias", "Values": ["true", "false"]}]}
    job = seed_tuning(
        Strategy="Grid", ParameterRanges=ranges, ResourceLimits={"MaxParallelTrainingJobs": 1}
    )
    config = AwsConfig(region="us-east-1", role_arn=ROLE, bucket=BUCKET)
    assert plan_tuning(dataset, job, config, seed=1).n_jobs == 2


def test_above_the_budget_is_refused_with_both_figures(dataset):
    estimate = worst_case(tuning_plan(dataset), PRICES)
    check_budget(estimate, 1.15)
    with pytest.raises(CloudError, match=r"worst case 1.15 USD.*budget of 1.14 USD"):
        check_budget(estimate, 1.14)


def test_an_unknown_price_is_refused_only_where_there_is_a_budget(dataset):
    estimate = worst_case(tuning_plan(dataset, instance_type="ml.c4.xlarge"), PRICES)
    check_budget(estimate, None)
    assert "worst case unknown" in str(estimate)
    with pytest.raises(CloudError, match="price of ml.c4.xlarge in us-east-1 is not known"):
        check_budget(estimate, 1000.0)


def test_bundled_prices_are_dated_and_for_some_regions_only():
    known, unknown = load_prices("us-east-1"), load_prices("eu-west-2")
    assert known.usd_per_hour["ml.m5.large"] == 0.115  # AWS Price List, USE1-Train:ml.m5.large
    assert known.as_of == "2026-08-20"
    assert unknown.usd_per_hour == {}


def test_a_damaged_price_file_is_named(tmp_path):
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(StoreError, match=r"aws-prices.json is damaged.*refresh again"):
        load_prices("us-east-1", tmp_path)


def test_one_training_job_is_one_job(dataset):
    config = AwsConfig(region="us-east-1", role_arn=ROLE, bucket=BUCKET)
    assert worst_case(plan_training(dataset, STATIC, config, seed=1), PRICES).usd == 0.115
