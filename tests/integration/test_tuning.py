"""A search on a real database: killed and gone on with, it ends as an unbroken one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from trademl.errors import ConfigError, StoreError, TrainError
from trademl.etl.dataset import Split
from trademl.ledger.database import Ledger
from trademl.train import batch, tuning
from trademl.train.model import load_model
from trademl.train.search_space import TuningConfig, parse_tuning_config
from trademl.train.tuning import train_one, tune

STATIC = {
    "predictor_type": "binary_classifier",
    "epochs": "2",
    "num_models": "32",
    "binary_classifier_model_selection_criteria": "precision_at_target_recall",
    "target_recall": "0.25",
}


def make_config(jobs: int = 7, **changed: object) -> TuningConfig:
    number = {"ScalingType": "Logarithmic"}
    return parse_tuning_config(
        {
            "StaticHyperParameters": STATIC,
            "ParameterRanges": {
                "CategoricalParameterRanges": [{"Name": "use_bias", "Values": ["true", "false"]}],
                "ContinuousParameterRanges": [
                    {"Name": "learning_rate", "MinValue": "0.001", "MaxValue": "1", **number},
                    {
                        "Name": "wd",
                        "MinValue": "0",
                        "MaxValue": "0.5",
                        **number | {"ScalingType": "ReverseLogarithmic"},
                    },
                ],
                "IntegerParameterRanges": [
                    {"Name": "mini_batch_size", "MinValue": "20", "MaxValue": "200", **number}
                ],
            },
            "HyperParameterTuningJobObjective": {
                "MetricName": "validation:roc_auc_score",
                "Type": "Maximize",
            },
            "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": 2},
            **changed,
        }
    )


def make_split(seed: int, n: int = 300) -> Split:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 5)).astype(np.float32)
    label = (features[:, 0] + rng.normal(size=n) > 0).astype(np.float32)
    at = np.arange(n, dtype=np.int64) * 10**9
    return Split(features, label, np.arange(n), at, at + 10**9, label.astype(np.float64) - 0.5)


def search(folder: Path, config: TuningConfig | None = None, **changed):
    options = {"seed": 3, "storage": f"sqlite:///{folder}/study.db", "study_name": "s", **changed}
    found = tune(
        make_split(1), make_split(2), config or make_config(), folder=folder / "models", **options
    )
    return [replace(trial, model_path=None) for trial in found.trials]


def model_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "models").iterdir())}


def stored_trials(folder: Path):
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/study.db")
    return [(t.number, t.state, t.params, t.value, t.user_attrs) for t in study.get_trials()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return search(folder), model_bytes(folder), stored_trials(folder)


def assert_same_search(folder, trials, unbroken):
    assert trials == unbroken[0]
    assert model_bytes(folder) == unbroken[1]
    assert stored_trials(folder) == unbroken[2]


class Killed(BaseException):
    """What no code of ours may catch."""


def killed_at(number, original):
    """Return ``original`` that dies when it is called for trial ``number``."""

    def call(*args, **more):
        if any(getattr(a, "number", a) == number for a in args[1:]):
            raise Killed
        return original(*args, **more)

    return call


def test_every_trial_has_its_model_and_its_metrics(unbroken):
    trials, models, _ = unbroken

    assert [trial.number for trial in trials] == list(range(7))
    assert list(models) == [f"trial-{n:02d}.tar.gz" for n in range(7)]
    assert all(trial.objective == trial.metrics["validation:roc_auc_score"] for trial in trials)
    assert not any(name.startswith("test:") for name in trials[0].metrics)
    assert max(trial.objective for trial in trials) > 0.7


def test_draws_keep_to_their_ranges_and_num_models_is_one(unbroken):
    for trial in unbroken[0]:
        drawn = trial.hyperparameters
        assert 0.001 <= float(drawn["learning_rate"]) <= 1
        assert 0 <= float(drawn["wd"]) <= 0.5
        assert 20 <= int(drawn["mini_batch_size"]) <= 200
        assert drawn["use_bias"] in ("true", "false")
        assert drawn["num_models"] == "1"
    assert len({trial.hyperparameters["learning_rate"] for trial in unbroken[0]}) == 7


def test_a_search_repeats_bit_for_bit(tmp_path, unbroken):
    assert_same_search(tmp_path, search(tmp_path), unbroken)


@pytest.mark.parametrize("number", [3, 6])
def test_killed_in_training_it_ends_the_same(tmp_path, unbroken, monkeypatch, number):
    with monkeypatch.context() as patch:
        patch.setattr(batch, "_result", killed_at(number, batch._result))
        with pytest.raises(Killed):
            search(tmp_path)

    assert_same_search(tmp_path, search(tmp_path), unbroken)


@pytest.mark.parametrize("number", [1, 3])
def test_killed_between_two_tells_it_ends_the_same(tmp_path, unbroken, monkeypatch, number):
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_tell", killed_at(number, tuning._tell))
        with pytest.raises(Killed):
            search(tmp_path)
    assert stored_trials(tmp_path)[-1][1] == optuna.trial.TrialState.RUNNING

    assert_same_search(tmp_path, search(tmp_path), unbroken)


def test_a_process_that_dies_is_gone_on_with_by_another(tmp_path, unbroken):
    script = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_tuning
from trademl.train import batch, tuning
def die(study, trial, result, tell=tuning._tell):
    os._exit(9) if result.number == 3 else tell(study, trial, result)
tuning._tell = die
test_tuning.search(Path({str(tmp_path)!r}))
"""
    died = subprocess.run([sys.executable, "-c", script], check=False)
    assert died.returncode == 9

    assert_same_search(tmp_path, search(tmp_path), unbroken)


def test_a_finished_search_is_read_back_and_not_run_again(tmp_path, unbroken, monkeypatch):
    search(tmp_path)
    monkeypatch.setattr(batch, "train_group", lambda *_: pytest.fail("trained again"))

    assert_same_search(tmp_path, search(tmp_path), unbroken)


def test_a_longer_search_goes_on_with_a_shorter_one(tmp_path, unbroken):
    search(tmp_path, make_config(jobs=3))  # its last batch is half of one of the longer search

    assert_same_search(tmp_path, search(tmp_path), unbroken)


def test_a_shorter_search_keeps_what_a_longer_one_found(tmp_path, unbroken):
    search(tmp_path)

    assert search(tmp_path, make_config(jobs=4)) == unbroken[0][:4]
    assert stored_trials(tmp_path) == unbroken[2]


@pytest.mark.parametrize("content", [None, b"half a mod"])
def test_a_lost_or_damaged_model_is_trained_again(tmp_path, unbroken, content):
    search(tmp_path)
    path = tmp_path / "models" / "trial-02.tar.gz"
    path.unlink() if content is None else path.write_bytes(content)

    assert_same_search(tmp_path, search(tmp_path), unbroken)


def test_a_study_of_other_settings_is_refused(tmp_path):
    search(tmp_path, make_config(jobs=1))

    with pytest.raises(StoreError, match="study s was begun with other settings"):
        search(tmp_path, make_config(jobs=1), seed=4)


def test_trials_that_fail_are_recorded_and_the_search_goes_on(tmp_path, monkeypatch):
    def fail_odd(job, ask, trained, result=batch._result, **more):
        if ask.number % 2:
            trained = TrainError(f"trial {ask.number} exploded")
        return result(job, ask, trained, **more)

    monkeypatch.setattr(batch, "_result", fail_odd)

    found = search(tmp_path, make_config(jobs=5))

    assert [t.failure for t in found] == [None, "trial 1 exploded", None, "trial 3 exploded", None]
    assert sorted(model_bytes(tmp_path)) == [f"trial-0{n}.tar.gz" for n in (0, 2, 4)]
    assert search(tmp_path, make_config(jobs=5)) == found


def test_a_search_whose_every_trial_fails_is_an_error(tmp_path, monkeypatch):
    def explode(job, ask, _trained, **_more):
        return batch.failed(job, ask, "the weights are not finite")

    monkeypatch.setattr(batch, "_result", explode)

    with pytest.raises(
        TrainError, match=r"every trial failed; trial 0: the weights are not finite"
    ):
        search(tmp_path, make_config(jobs=2))


def test_an_objective_on_test_needs_and_reads_the_test_split(tmp_path):
    objective = {"MetricName": "test:precision", "Type": "Maximize"}
    config = make_config(jobs=2, HyperParameterTuningJobObjective=objective)

    with pytest.raises(ConfigError, match="test:precision needs a test split"):
        search(tmp_path, config)
    assert search(tmp_path, config, test=make_split(5))[0].metrics["test:precision"] is not None


def test_a_random_search_draws_otherwise_and_repeats(tmp_path):
    config = make_config(jobs=6, Strategy="Random", RandomSeed=1)

    first, second = (search(tmp_path / name, config, storage="sqlite://") for name in "ab")

    assert first == second
    assert first != search(tmp_path / "c", make_config(jobs=6), storage="sqlite://")


def test_the_ledger_may_share_the_database(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    Ledger(url).close()

    search(tmp_path, make_config(jobs=2))

    Ledger(url).close()
    assert len(stored_trials(tmp_path)) == 2


def test_a_database_that_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(StoreError, match="unable to open database file"):
        search(tmp_path, storage=f"sqlite:///{tmp_path}/absent/study.db")


def test_optuna_stays_quiet_and_is_left_as_it_was(tmp_path, capfd):
    before = optuna.logging.get_verbosity()

    search(tmp_path, make_config(jobs=2))

    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""


def test_a_single_job_is_the_same_as_that_trial_of_a_search(tmp_path, unbroken):
    trial = unbroken[0][2]

    found = train_one(
        make_split(1), make_split(2), trial.hyperparameters, seed=3, folder=tmp_path / "models"
    )

    assert found.metrics == trial.metrics
    assert found.objective == trial.metrics["validation:objective_loss"]
    assert model_bytes(tmp_path)["trial-00.tar.gz"] == unbroken[1]["trial-02.tar.gz"]


def test_columns_travel_into_the_model(tmp_path):
    names = ("a", "b", "c", "d", "e")

    train_one(
        make_split(1),
        make_split(2),
        STATIC | {"num_models": "1"},
        seed=0,
        folder=tmp_path,
        columns=names,
    )

    assert load_model(tmp_path / "trial-00.tar.gz").columns == names
