"""A tuning job's JSON, as SageMaker takes it."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from trademl.errors import ConfigError
from trademl.train.ranges import CategoryRange, NumberRange
from trademl.train.search_space import load_tuning_config, parse_tuning_config

SAMPLE = json.loads((files("trademl") / "sample" / "tuning.json").read_bytes())
JOB_KEYS = ("ParameterRanges", "HyperParameterTuningJobObjective", "Strategy", "ResourceLimits")


def changed(**replaced):
    return {**deepcopy(SAMPLE), **replaced}


def with_range(kind, **entry):
    return changed(ParameterRanges={f"{kind}ParameterRanges": [entry]})


def test_the_sample_is_the_original_search():
    config = parse_tuning_config(SAMPLE)

    assert config.static["feature_dim"] == "605"
    assert config.static["target_recall"] == "0.25"
    assert config.ranges == (
        NumberRange("l1", 1e-7, 1.0, "Logarithmic"),
        NumberRange("learning_rate", 1e-5, 1.0, "Logarithmic"),
        NumberRange("mini_batch_size", 100, 1000, "Logarithmic", is_integer=True),
        NumberRange("positive_example_weight_mult", 1e-5, 1e4, "Logarithmic"),
        CategoryRange("use_bias", ("true", "false")),
        NumberRange("wd", 1e-7, 1.0, "Logarithmic"),
    )
    assert (config.objective.metric, config.objective.direction) == (
        "validation:precision",
        "Maximize",
    )
    assert (config.strategy, config.n_jobs, config.n_parallel) == ("Bayesian", 10, 2)
    assert config.warnings == ()


def test_the_nested_request_is_the_same_search():
    request = {
        "HyperParameterTuningJobName": "btc",
        "HyperParameterTuningJobConfig": {key: SAMPLE[key] for key in JOB_KEYS},
        "TrainingJobDefinition": {
            "StaticHyperParameters": SAMPLE["StaticHyperParameters"],
            "RoleArn": "arn:aws:iam::1:role/r",
        },
    }

    found = parse_tuning_config(request)

    assert found.name == "btc"
    assert replace(found, name=None) == parse_tuning_config(SAMPLE)


def test_an_objective_on_test_is_marked_as_a_leak():
    objective = {"MetricName": "test:precision", "Type": "Maximize"}

    (warning,) = parse_tuning_config(changed(HyperParameterTuningJobObjective=objective)).warnings

    assert warning.startswith("leak: the objective test:precision")
    assert warning.endswith("tune on validation:precision")


def test_random_seed_and_numbers_as_text_are_read():
    limits = {"MaxNumberOfTrainingJobs": "7", "MaxParallelTrainingJobs": 1}

    config = parse_tuning_config(changed(RandomSeed=5, ResourceLimits=limits, Strategy="Random"))

    assert (config.random_seed, config.n_jobs, config.strategy) == (5, 7, "Random")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [("0.001", "1", "Logarithmic"), ("0.1", "1", "Linear"), ("0", "1", "Linear")],
)
def test_auto_scaling_is_logarithmic_over_two_decades(low, high, expected):
    request = with_range("Continuous", Name="wd", MinValue=low, MaxValue=high)

    (found,) = parse_tuning_config(request).ranges

    assert found.scaling == expected


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (changed(Stratgy="Random"), "key 'Stratgy' .* did you mean 'Strategy'"),
        (changed(Strategy="Grid"), "Strategy Grid takes Categorical.* list the Values of l1"),
        (changed(Strategy="Best"), "Strategy is 'Best'"),
        (
            changed(TrainingJobEarlyStoppingType="Auto"),
            "EarlyStoppingType Auto needs .* and validation:precision is none: .*objective_loss",
        ),
        (changed(TrainingJobEarlyStoppingType="On"), "TrainingJobEarlyStoppingType is 'On'"),
        (
            changed(StrategyConfig={"HyperbandStrategyConfig": {}}),
            "StrategyConfig is for the Strategy Hyperband, which is Bayesian here",
        ),
        (changed(TrainingJobDefinitions=[{}]), "use TrainingJobDefinition$"),
        (changed(Autotune={"Mode": "Enabled"}), "Autotune .* has no local twin"),
        (
            changed(ParameterRanges={"AutoParameters": [{"Name": "wd"}]}),
            "AutoParameters leaves ranges to SageMaker's Autotune",
        ),
        (changed(HyperParameterTuningJobName="x" * 33), r"TuningJobName is .*\(33 characters\)"),
        (changed(HyperParameterTuningJobName="a_b"), "TuningJobName is 'a_b'"),
        (changed(HyperParameterTuningJobName="-ab"), "TuningJobName is '-ab'"),
        (changed(ParameterRanges=None), "ParameterRanges is missing"),
        (changed(ParameterRanges={}), "ParameterRanges is empty"),
        (changed(ParameterRanges=[]), r"ParameterRanges is \[\], expected an object"),
        (changed(ResourceLimits={"MaxNumberOfTrainingJobs": 0}), "MaxNumberOfTrainingJobs is 0"),
        (
            changed(ResourceLimits={"MaxNumberOfTrainingJobs": 751}),
            "MaxNumberOfTrainingJobs is 751, expected an integer from 1 to 750",
        ),
        (
            changed(ResourceLimits={"MaxNumberOfTrainingJobs": 9, "MaxParallelTrainingJobs": 101}),
            "MaxParallelTrainingJobs is 101",
        ),
        (changed(ResourceLimits={"MaxParallelTrainingJobs": 1}), "MaxNumberOfTrainingJobs is None"),
        (changed(ResourceLimits={"MaxRuntimeInSeconds": 119}), "MaxRuntimeInSeconds is 119"),
        (
            changed(TuningJobCompletionCriteria={"TargetObjectiveMetricValue": "high"}),
            "TargetObjectiveMetricValue is 'high', expected a number",
        ),
        (
            changed(
                TuningJobCompletionCriteria={
                    "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 2}
                }
            ),
            "MaxNumberOfTrainingJobsNotImproving is 2, expected an integer from 3",
        ),
        (
            changed(
                TuningJobCompletionCriteria={"ConvergenceDetected": {"CompleteOnConvergence": "x"}}
            ),
            "CompleteOnConvergence is 'x', expected Disabled, Enabled",
        ),
        (
            changed(WarmStartConfig={"WarmStartType": "TransferLearning"}),
            "ParentHyperParameterTuningJobs is missing",
        ),
        (
            changed(
                WarmStartConfig={
                    "WarmStartType": "TransferLearning",
                    "ParentHyperParameterTuningJobs": [
                        {"HyperParameterTuningJobName": f"p{n}"} for n in range(6)
                    ],
                }
            ),
            "names 6 jobs, expected 1 to 5",
        ),
        (changed(WarmStartConfig={"WarmStartType": "Same"}), "WarmStartType is 'Same'"),
        (
            changed(StaticHyperParameters={f"p{n}": "1" for n in range(101)}),
            "StaticHyperParameters has 101 entries, expected at most 100",
        ),
        (changed(RandomSeed=-1), "RandomSeed is -1"),
        (
            changed(StaticHyperParameters={"predictor_type": "ranker"}),
            "predictor_type is 'ranker'",
        ),
        (
            changed(StaticHyperParameters={**SAMPLE["StaticHyperParameters"], "wd": "0.1"}),
            "wd is both in StaticHyperParameters and in ParameterRanges",
        ),
        (
            changed(HyperParameterTuningJobObjective={"MetricName": "validation:precison"}),
            "MetricName 'validation:precison' is unknown .* did you mean 'validation:precision'",
        ),
        (
            changed(HyperParameterTuningJobObjective={"MetricName": "validation:mse"}),
            "MetricName 'validation:mse' is unknown for a binary_classifier",
        ),
        (
            changed(
                HyperParameterTuningJobObjective={
                    "MetricName": "validation:objective_loss",
                    "Type": "Maximize",
                }
            ),
            "Type of the objective validation:objective_loss is 'Maximize', expected 'Minimize'",
        ),
    ],
)
def test_a_wrong_request_is_refused_by_name(request_, message):
    with pytest.raises(ConfigError, match=message):
        parse_tuning_config(request_)


def with_strategy(strategy, ranges, limits=None, **more):
    return changed(
        Strategy=strategy,
        ParameterRanges=ranges,
        ResourceLimits={"MaxParallelTrainingJobs": 1} | (limits or {}),
        **more,
    )


GRID = {
    "CategoricalParameterRanges": [
        {"Name": "use_bias", "Values": ["true", "false"]},
        {"Name": "mini_batch_size", "Values": ["100", "300", "1000"]},
    ]
}
LOSS = {"MetricName": "validation:objective_loss", "Type": "Minimize"}


@pytest.mark.parametrize("limits", [{}, {"MaxNumberOfTrainingJobs": 6}])
def test_a_grid_is_as_long_as_its_combinations(limits):
    assert parse_tuning_config(with_strategy("Grid", GRID, limits)).n_jobs == 6


def test_a_grid_of_another_length_is_refused():
    with pytest.raises(ConfigError, match="MaxNumberOfTrainingJobs is 5, the grid has 6 comb"):
        parse_tuning_config(with_strategy("Grid", GRID, {"MaxNumberOfTrainingJobs": 5}))


def test_listed_values_of_a_number_are_marked_as_only_here():
    (warning,) = parse_tuning_config(with_strategy("Grid", GRID)).warnings

    assert warning.startswith("only here: mini_batch_size has listed values")


def test_a_random_search_may_have_ten_thousand_jobs():
    limits = {"MaxNumberOfTrainingJobs": 10_000, "MaxParallelTrainingJobs": 1}

    assert parse_tuning_config(changed(Strategy="Random", ResourceLimits=limits)).n_jobs == 10_000


def test_what_ends_a_search_may_stand_in_for_the_number_of_jobs():
    limits = {"MaxParallelTrainingJobs": 1, "MaxRuntimeInSeconds": 600}

    config = parse_tuning_config(changed(ResourceLimits=limits))

    assert (config.n_jobs, config.completion.max_runtime_s) == (750, 600)


def test_the_default_objective_is_the_validation_loss():
    request = changed()
    del request["HyperParameterTuningJobObjective"]

    assert parse_tuning_config(request).objective.metric == "validation:objective_loss"


def hyperband(**resources):
    held = {"StrategyConfig": {"HyperbandStrategyConfig": resources}} if resources else {}
    return changed(Strategy="Hyperband", HyperParameterTuningJobObjective=LOSS, **held)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [({}, (1, 15)), ({"MaxResource": 9}, (1, 9)), ({"MinResource": 2, "MaxResource": 9}, (2, 9))],
)
def test_hyperband_trains_between_its_resources_in_epochs(resources, expected):
    found = parse_tuning_config(hyperband(**resources)).hyperband

    assert (found.min_epochs, found.max_epochs) == expected


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (hyperband(MinResource=9, MaxResource=9), "MinResource is 9 epochs, expected below"),
        (hyperband(MaxResource=16), "MaxResource is 16 epochs, StaticHyperParameters have 15"),
        (
            {**hyperband(), "TrainingJobEarlyStoppingType": "Auto"},
            "TrainingJobEarlyStoppingType is Auto, Hyperband .* set it to Off",
        ),
        (changed(Strategy="Hyperband"), "Strategy Hyperband needs an objective that each epoch"),
    ],
)
def test_a_wrong_hyperband_is_refused_by_name(request_, message):
    with pytest.raises(ConfigError, match=message):
        parse_tuning_config(request_)


@pytest.mark.parametrize(
    ("kind", "entry", "message"),
    [
        ("Continuous", {"Name": "momentum"}, "'momentum' cannot be tuned"),
        ("Continuous", {"Name": "learning_rat"}, "did you mean 'learning_rate'"),
        ("Continuous", {"Name": "mini_batch_size"}, "expected Integer"),
        ("Continuous", {"Name": "wd", "MaxValue": "1"}, "MinValue of wd is missing"),
        ("Continuous", {"Name": "wd", "MinValue": "1", "MaxValue": "1"}, "below its MaxValue 1"),
        (
            "Continuous",
            {"Name": "wd", "MinValue": "auto", "MaxValue": "1"},
            "MinValue of the range",
        ),
        (
            "Continuous",
            {"Name": "learning_rate", "MinValue": "0", "MaxValue": "1"},
            "MinValue of the range of learning_rate: learning_rate is '0'",
        ),
        (
            "Continuous",
            {"Name": "wd", "MinValue": "0", "MaxValue": "1", "ScalingType": "Logarithmic"},
            "Logarithmic of wd needs MinValue above 0",
        ),
        (
            "Continuous",
            {"Name": "wd", "MinValue": "0", "MaxValue": "1", "ScalingType": "ReverseLogarithmic"},
            "ReverseLogarithmic of wd needs",
        ),
        (
            "Continuous",
            {"Name": "wd", "MinValue": "0", "MaxValue": "1", "ScalingType": "Log"},
            "ScalingType 'Log' of wd is unknown",
        ),
        ("Categorical", {"Name": "use_bias", "Values": ["maybe"]}, "use_bias is 'maybe'"),
        ("Categorical", {"Name": "use_bias", "Values": []}, "expected different ones"),
        ("Integer", {"Name": "mini_batch_size", "MinValue": "1.5", "MaxValue": "9"}, "an integer"),
        ("Categorical", {"Name": "use_bias", "Value": ["true"]}, "did you mean 'Values'"),
    ],
)
def test_a_wrong_range_is_refused_by_name(kind, entry, message):
    with pytest.raises(ConfigError, match=message):
        parse_tuning_config(with_range(kind, **entry))


def test_a_file_that_is_no_json_is_refused(tmp_path: Path):
    (tmp_path / "tuning.json").write_text("{")

    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        load_tuning_config(tmp_path / "tuning.json")
