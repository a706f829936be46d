"""Which earlier searches a search may begin with."""

from __future__ import annotations

import json
from copy import deepcopy
from importlib.resources import files

import pytest

from trademl.errors import ConfigError
from trademl.train.search_space import parse_tuning_config
from trademl.train.warm_start import Parent, WarmStart, check_parent

SAMPLE = json.loads((files("trademl") / "sample" / "tuning.json").read_bytes())


def request(kind="TransferLearning", parents=("first",), **replaced):
    names = [{"HyperParameterTuningJobName": name} for name in parents]
    warm = {"WarmStartType": kind, "ParentHyperParameterTuningJobs": names}
    return {**deepcopy(SAMPLE), "WarmStartConfig": warm, **replaced}


def check(before=SAMPLE, after=None, *, dataset_id="d", code_version="1"):
    parent = Parent("first", "study-1", "d", "1", parse_tuning_config(before), ())
    config = parse_tuning_config(after or request())
    check_parent(parent, config, dataset_id=dataset_id, code_version=code_version)


def static_wd():
    """Return the sample with weight decay fixed in place of tuned."""
    changed = deepcopy(SAMPLE)
    changed["StaticHyperParameters"]["wd"] = "0.1"
    numbers = changed["ParameterRanges"]["ContinuousParameterRanges"]
    numbers[:] = [one for one in numbers if one["Name"] != "wd"]
    return changed


def test_parents_are_read_once_each():
    found = parse_tuning_config(request(parents=("a", "b", "a"))).warm_start

    assert found == WarmStart(("a", "b"), "TransferLearning")


def test_a_parent_of_the_same_hyperparameters_will_do():
    check()
    check(static_wd())


def test_another_objective_is_refused():
    before = {
        **SAMPLE,
        "HyperParameterTuningJobObjective": {"MetricName": "validation:recall", "Type": "Maximize"},
    }
    with pytest.raises(ConfigError, match="parent first .* has the objective validation:recall"):
        check(before)


def test_another_set_of_hyperparameters_is_refused():
    static = SAMPLE["StaticHyperParameters"] | {"margin": "2"}
    with pytest.raises(ConfigError, match="margin is set by one of them alone"):
        check({**SAMPLE, "StaticHyperParameters": static})


def test_keys_of_the_platform_are_no_hyperparameters():
    static = SAMPLE["StaticHyperParameters"] | {"_tuning_objective_metric": "x", "num_models": "1"}
    check({**SAMPLE, "StaticHyperParameters": static})


def test_another_type_of_range_is_refused():
    before = deepcopy(SAMPLE)
    del before["ParameterRanges"]["IntegerParameterRanges"]
    before["ParameterRanges"]["CategoricalParameterRanges"].append(
        {"Name": "mini_batch_size", "Values": ["100", "200"]}
    )
    with pytest.raises(ConfigError, match="tuned mini_batch_size as Categorical, .* as Integer"):
        check(before)


@pytest.mark.parametrize(
    ("different", "what"),
    [({"dataset_id": "e"}, "was trained on d, not e"), ({"code_version": "2"}, "by trademl 1")],
)
def test_identical_data_and_algorithm_must_be(different, what):
    check(after=request("IdenticalDataAndAlgorithm"))
    check(**different)
    with pytest.raises(ConfigError, match=f"{what}.*: set WarmStartType to TransferLearning"):
        check(after=request("IdenticalDataAndAlgorithm"), **different)
