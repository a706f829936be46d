"""Searches of every strategy, what ends them early, and how one begins with another."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_tuning

from running import one_line
from trademl.errors import TrainError
from trademl.train.completion import Completion
from trademl.train.search_space import parse_tuning_config
from trademl.train.tuning import tune
from trademl.train.warm_start import Parent

LOSS = {"MetricName": "validation:objective_loss", "Type": "Minimize"}
AUC = {"MetricName": "validation:roc_auc_score", "Type": "Maximize"}
RATES = {"Name": "learning_rate", "MinValue": "0.00001", "MaxValue": "1"}
TRAIN, VALIDATION = test_tuning.make_split(1), test_tuning.make_split(2)


def make_config(jobs, ranges=None, *, static=None, parallel=2, **changed):
    limits = {"MaxParallelTrainingJobs": parallel}
    return parse_tuning_config(
        {
            "StaticHyperParameters": {
                "predictor_type": "binary_classifier",
                "epochs": "9",
                "early_stopping_patience": "9",
                "mini_batch_size": "100",
            }
            | (static or {}),
            "ParameterRanges": ranges
            or {"ContinuousParameterRanges": [RATES | {"ScalingType": "Logarithmic"}]},
            "HyperParameterTuningJobObjective": LOSS,
            "ResourceLimits": limits | ({"MaxNumberOfTrainingJobs": jobs} if jobs else {}),
            **changed,
        }
    )


def search(folder, config, **more):
    folder.mkdir(exist_ok=True)
    options = {"seed": 3, "storage": f"sqlite:///{folder}/study.db", "study_name": "s"}
    return tune(TRAIN, VALIDATION, config, folder=folder / "models", **options | more)


def bare(trials):
    return [replace(trial, model_path=None) for trial in trials]


GRID = {
    "CategoricalParameterRanges": [
        {"Name": "use_bias", "Values": ["true", "false"]},
        {"Name": "mini_batch_size", "Values": ["50", "100", "200"]},
    ]
}


def grid_config():
    config = make_config(1)
    static = {k: v for k, v in config.static.items() if k != "mini_batch_size"}
    return parse_tuning_config(
        {
            "StaticHyperParameters": static | {"epochs": "2"},
            "ParameterRanges": GRID,
            "Strategy": "Grid",
            "ResourceLimits": {"MaxParallelTrainingJobs": 4},
        }
    )


def test_a_grid_trains_every_combination_once(tmp_path):
    found = search(tmp_path, grid_config())

    points = [
        (t.hyperparameters["mini_batch_size"], t.hyperparameters["use_bias"]) for t in found.trials
    ]
    assert points == [(size, bias) for size in ("50", "100", "200") for bias in ("true", "false")]
    assert found.ending == "all_trials"


def test_a_grid_that_is_killed_goes_on_with_the_next_combination(tmp_path, monkeypatch):
    unbroken = search(tmp_path / "whole", grid_config(), storage="sqlite://")
    with monkeypatch.context() as patch:
        from trademl.train import tuning

        patch.setattr(tuning, "_tell", test_tuning.killed_at(5, tuning._tell))
        with pytest.raises(test_tuning.Killed):
            search(tmp_path, grid_config())

    assert bare(search(tmp_path, grid_config()).trials) == bare(unbroken.trials)


def test_the_median_rule_stops_trials_that_fall_behind(tmp_path):
    config = make_config(12, TrainingJobEarlyStoppingType="Auto", Strategy="Random")

    trials = search(tmp_path, config).trials

    assert not any(trial.is_stopped for trial in trials[:4])  # nothing to be held against yet
    stopped = [trial for trial in trials if trial.is_stopped]
    assert stopped
    for trial in stopped:
        n = len(trial.losses)
        earlier = [t for t in trials if t.number < trial.number - trial.number % 2]
        means = [np.mean(t.losses[:n]) for t in earlier]
        assert n < 9
        assert trial.losses[-1] > np.median(means)
        assert trial.objective is not None
    assert max(t.rank for t in trials if not t.is_stopped) > max(t.rank for t in stopped)


def test_the_median_is_that_of_all_trials_of_finished_batches(tmp_path):
    config = make_config(12, TrainingJobEarlyStoppingType="Auto", Strategy="Random")

    trials = search(tmp_path, config).trials

    for trial in trials[4:]:
        earlier = [t.losses for t in trials if t.number < trial.number - trial.number % 2]
        for n in range(1, len(trial.losses)):  # it went on after each of these epochs
            assert trial.losses[n - 1] <= np.median([np.mean(curve[:n]) for curve in earlier])


def test_a_stopped_trial_stops_again_after_a_kill(tmp_path, monkeypatch):
    config = make_config(12, TrainingJobEarlyStoppingType="Auto", Strategy="Random")
    unbroken = search(tmp_path / "whole", config, storage="sqlite://")
    with monkeypatch.context() as patch:
        from trademl.train import tuning

        patch.setattr(tuning, "_tell", test_tuning.killed_at(9, tuning._tell))
        with pytest.raises(test_tuning.Killed):
            search(tmp_path, config)

    assert bare(search(tmp_path, config).trials) == bare(unbroken.trials)


def test_hyperband_gives_most_trials_few_epochs(tmp_path):
    config = make_config(20, Strategy="Hyperband", parallel=4)

    trials = search(tmp_path, config).trials

    lengths = [len(trial.losses) for trial in trials]
    assert set(lengths) <= {1, 3, 9}  # rungs of 1, 3 and 9 epochs
    assert sum(lengths) < 0.75 * 9 * 20
    assert all((len(trial.losses) < 9) == trial.is_stopped for trial in trials)
    best = max(trials, key=lambda trial: trial.rank)
    assert len(best.losses) == 9


def test_hyperband_ends_at_its_largest_resource(tmp_path):
    resources = {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 3}}
    config = make_config(6, Strategy="Hyperband", StrategyConfig=resources)

    assert max(len(trial.losses) for trial in search(tmp_path, config).trials) == 3


def test_a_target_ends_the_search_after_its_batch(tmp_path):
    whole = search(tmp_path / "whole", make_config(10, Strategy="Random"), storage="sqlite://")
    target = sorted(trial.objective for trial in whole.trials)[3]
    criteria = {"TargetObjectiveMetricValue": target}

    found = search(
        tmp_path, make_config(10, Strategy="Random", TuningJobCompletionCriteria=criteria)
    )

    first = next(trial.number for trial in whole.trials if trial.objective <= target)
    assert found.ending == "target_reached"
    assert bare(found.trials) == bare(whole.trials[: first // 2 * 2 + 2])


def test_time_ends_the_search_after_a_batch_and_a_second_run_adds_none(tmp_path):
    config = replace(make_config(10), completion=Completion(max_runtime_s=0))

    for _ in range(2):
        found = search(tmp_path, config)
        assert (found.ending, len(found.trials)) == ("out_of_time", 2)


def parent_of(found, config, name="first"):
    return Parent(name, "study-1", "d", "1", config, tuple(found.trials))


def test_a_warm_search_begins_where_its_parent_ended(tmp_path):
    config = make_config(12)
    parent = parent_of(search(tmp_path / "parent", config, storage="sqlite://"), config)

    warm = search(tmp_path, make_config(4), parents=[parent]).trials
    cold = search(tmp_path / "cold", make_config(4), storage="sqlite://").trials

    def rates(trials):
        return np.log10([float(t.hyperparameters["learning_rate"]) for t in trials])

    best = rates([max(parent.trials, key=lambda t: t.rank)])
    assert np.median(np.abs(rates(warm) - best)) < np.median(np.abs(rates(cold) - best))
    assert [trial.number for trial in warm] == [0, 1, 2, 3]


def test_a_warm_search_that_is_killed_ends_the_same(tmp_path, monkeypatch):
    config = make_config(4)
    parent = parent_of(search(tmp_path / "parent", config, storage="sqlite://"), config)
    longer = make_config(6)
    unbroken = search(tmp_path / "whole", longer, storage="sqlite://", parents=[parent])
    with monkeypatch.context() as patch:
        from trademl.train import tuning

        patch.setattr(tuning, "_tell", test_tuning.killed_at(3, tuning._tell))
        with pytest.raises(test_tuning.Killed):
            search(tmp_path, longer, parents=[parent])

    assert bare(search(tmp_path, longer, parents=[parent]).trials) == bare(unbroken.trials)


def test_a_parents_trials_outside_the_ranges_are_left_out(tmp_path):
    config = make_config(4)
    parent = parent_of(search(tmp_path / "parent", config, storage="sqlite://"), config)
    narrow = {"ContinuousParameterRanges": [RATES | {"MinValue": "0.9", "MaxValue": "1"}]}

    found = search(tmp_path, make_config(2, narrow), parents=[parent])

    rates = [float(t.hyperparameters["learning_rate"]) for t in found.trials]
    assert all(0.9 <= rate <= 1 for rate in rates)


def test_a_batch_that_shares_its_passes_is_the_same_as_each_trial_alone(tmp_path):
    together = search(tmp_path / "a", make_config(4, parallel=4, Strategy="Random"))
    alone = search(tmp_path / "b", make_config(4, parallel=1, Strategy="Grid", ranges=at(together)))

    assert [t.metrics for t in together.trials] == [t.metrics for t in alone.trials]
    for number in range(4):
        name = f"trial-{number:02d}.tar.gz"
        weights = [tmp_path / folder / "models" / name for folder in "ab"]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def at(found):
    """Return a grid of the very points that a search drew."""
    rates = [trial.hyperparameters["learning_rate"] for trial in found.trials]
    return {"CategoricalParameterRanges": [{"Name": "learning_rate", "Values": rates}]}


def test_no_trial_with_an_objective_is_an_error(tmp_path):
    flat = replace(VALIDATION, label_N=np.zeros(len(VALIDATION), np.float32))
    config = make_config(2, HyperParameterTuningJobObjective=AUC)

    with pytest.raises(TrainError, match="no trial has a value of the objective .*roc_auc_score"):
        tune(
            TRAIN, flat, config, seed=3, storage="sqlite://", study_name="s",
            folder=tmp_path,
        )  # fmt: skip


# Through the command line


@pytest.fixture(scope="module")
def workspace(trademl, tmp_path_factory):
    path = tmp_path_factory.mktemp("tuning") / "ws"
    for words in (["ingest", "replay"], ["ingest", "export"], ["features", "build"]):
        done = trademl(*words, "--workspace", path)
        assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def tuned(trademl, workspace, project, tmp_path_factory):
    return run_tune(trademl, workspace, project, HyperParameterTuningJobName="first-search")


def run_tune(trademl, workspace, project: Path, *, fails=False, **changed):
    """Tune with the project's job, changed; the strategy file is left as it was."""
    request = json.loads((project / "tuning.json").read_text()) | changed
    limits = {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2}
    path = project / f"tuning-{abs(hash(json.dumps(request)))}.json"
    path.write_text(json.dumps({"ResourceLimits": limits} | request | {"ResourceLimits": limits}))
    strategy = path.with_suffix(".toml")
    text = (project / "strategy.toml").read_text()
    strategy.write_text(text.replace("tuning.json", path.name))
    done = trademl("tune", "--config", strategy, "--workspace", workspace, "--json")
    if fails:
        return one_line(done)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_answer_has_the_shape_of_sagemakers(tuned):
    assert tuned["HyperParameterTuningJobName"] == "first-search"
    assert tuned["HyperParameterTuningJobStatus"] == "Completed"
    assert tuned["TrainingJobStatusCounters"] == {
        "Completed": 2,
        "InProgress": 0,
        "RetryableError": 0,
        "NonRetryableError": 0,
        "Stopped": 0,
    }
    assert tuned["ObjectiveStatusCounters"] == {"Succeeded": 2, "Pending": 0, "Failed": 0}
    best = tuned["BestTrainingJob"]
    number = tuned["best_trial"] + 1
    assert re.fullmatch(rf"first-search-00{number}-[0-9a-f]{{8}}", best["TrainingJobName"])
    assert best["TunedHyperParameters"].keys() == {"wd", "l1"}
    assert all(isinstance(value, str) for value in best["TunedHyperParameters"].values())
    metric = best["FinalHyperParameterTuningJobObjectiveMetric"]
    assert metric == {
        "Type": "Maximize",
        "MetricName": "validation:roc_auc_score",
        "Value": tuned["trials"][tuned["best_trial"]]["objective"],
    }
    assert tuned["CreationTime"] <= best["TrainingStartTime"] < best["TrainingEndTime"]
    assert tuned["ConsumedResources"]["RuntimeInSeconds"] >= 0


def warm(kind, parent):
    return {
        "WarmStartType": kind,
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": parent}],
    }


@pytest.mark.parametrize("key", ["HyperParameterTuningJobName", "id"])
def test_a_search_begins_with_a_parent_of_the_ledger(tuned, trademl, workspace, project, key):
    found = run_tune(
        trademl,
        workspace,
        project,
        RandomSeed=5,
        WarmStartConfig=warm("IdenticalDataAndAlgorithm", tuned[key]),
    )

    assert len(found["trials"]) == 2
    candidates = [
        one["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
        for one in (found, tuned)
    ]
    overall = found["OverallBestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]
    assert overall["Value"] == max(candidates)


def test_an_unknown_parent_is_one_line(tuned, trademl, workspace, project):
    message = run_tune(
        trademl,
        workspace,
        project,
        fails=True,
        WarmStartConfig=warm("TransferLearning", "nobody"),
    )
    assert "the parent nobody of WarmStartConfig is no finished study" in message


def test_a_leaking_objective_is_marked_in_words_and_json(trademl, workspace, project):
    objective = {"MetricName": "test:roc_auc_score", "Type": "Maximize"}

    found = run_tune(trademl, workspace, project, HyperParameterTuningJobObjective=objective)

    assert found["warnings"][0].startswith("leak: the objective test:roc_auc_score chooses")


def test_a_single_job_has_the_shape_of_sagemakers_too(trademl, workspace, tuned):
    done = trademl("train", "--hp", "wd=0.01", "--workspace", workspace, "--json")
    found = json.loads(done.stdout)

    assert found["TrainingJobStatus"] == "Completed"
    metrics = {m["MetricName"]: m["Value"] for m in found["FinalMetricDataList"]}
    assert metrics["validation:objective_loss"] == found["trials"][0]["objective"]
    assert found["ModelArtifacts"]["S3ModelArtifacts"].endswith("trial-00.tar.gz")


def test_a_dataset_may_be_named_by_its_folder(trademl, workspace, tuned, tmp_path):
    (folder,) = (workspace / "artifacts" / "dataset").iterdir()
    words = ("train", folder, "--hp", "wd=0.01", "--json")

    done = trademl(*words, "--workspace", workspace)
    assert json.loads(done.stdout)["trials"][0]["hyperparameters"]["wd"] == "0.01"

    elsewhere = trademl(*words, "--workspace", tmp_path / "other")
    assert f"holds {folder.name}, which is not in this workspace" in one_line(elsewhere)
