"""Many candidates in one pass: each ends as it would have ended alone."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.errors import ConfigError, TrainError
from trademl.train import engine
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.linear_learner import fit, fit_together, pass_key

BASE = {
    "predictor_type": "binary_classifier",
    "mini_batch_size": "100",
    "epochs": "4",
    "num_models": "1",
}
CANDIDATES = [
    {"learning_rate": "0.05"},
    {"learning_rate": "0.02", "use_bias": "false", "l1": "0.01"},
    {"optimizer": "sgd", "wd": "0.1", "positive_example_weight_mult": "3"},
    {"loss": "hinge_loss", "optimizer": "rmsprop", "early_stopping_patience": "1"},
    {"epochs": "2", "lr_scheduler_step": "5", "lr_scheduler_factor": "0.5"},
    {"positive_example_weight_mult": "balanced", "init_method": "normal", "beta_1": "0.5"},
]


def read(values):
    return LinearLearnerParameters.from_strings({**BASE, **values})


def bits(trained):
    model = trained.model
    return model.weights_D.tobytes(), model.bias, model.threshold, trained.metrics, trained.history


@pytest.fixture
def alone(draw):
    return [fit(draw(1), draw(2), read(values), seed=3) for values in CANDIDATES]


def test_each_candidate_is_bit_for_bit_what_it_is_alone(draw, alone):
    found = fit_together(draw(1), draw(2), [read(values) for values in CANDIDATES], seed=3)

    assert [bits(f) for f in found] == [bits(f) for f in alone]


def test_the_number_of_threads_changes_no_bit(draw, alone, monkeypatch):
    for n_threads in (1, 3):
        monkeypatch.setattr(engine.os, "cpu_count", lambda n=n_threads: n)
        found = fit_together(draw(1), draw(2), [read(values) for values in CANDIDATES], seed=3)
        assert [bits(f) for f in found] == [bits(f) for f in alone]


def test_candidates_that_stop_early_leave_the_others_as_they_are(draw):
    hasty = {"early_stopping_patience": "1", "early_stopping_tolerance": "0.9", "epochs": "9"}
    patient = {"early_stopping_patience": "20", "epochs": "9"}

    first, second = fit_together(draw(1), draw(2), [read(hasty), read(patient)], seed=3)

    assert (len(first.history), len(second.history)) == (2, 9)
    assert bits(second) == bits(fit(draw(1), draw(2), read(patient), seed=3))


def test_a_candidate_that_explodes_fails_alone(draw):
    wild = {"learning_rate": "1e38", "normalize_data": "false", "wd": "1e10"}
    calm = {"normalize_data": "false"}

    failed, trained = fit_together(draw(1), draw(2), [read(wild), read(calm)], seed=3)

    assert isinstance(failed, TrainError)
    assert "not finite after epoch 0" in str(failed)
    assert bits(trained) == bits(fit(draw(1), draw(2), read(calm), seed=3))


def test_use_bias_loss_and_optimizer_need_no_pass_of_their_own():
    assert len({pass_key(read(values)) for values in CANDIDATES}) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"mini_batch_size": "50"},
        {"normalize_data": "false"},
        {"num_point_for_scaler": "10"},
        {"predictor_type": "regressor"},
    ],
)
def test_what_changes_the_rows_needs_another_pass(draw, values):
    assert pass_key(read(values)) != pass_key(read({}))
    with pytest.raises(ConfigError, match="2 candidates with 2 pass keys"):
        fit_together(draw(1), draw(2), [read({}), read(values)], seed=0)


def test_without_a_shift_use_bias_decides_about_the_rows():
    plain = {"normalize_data": "false"}

    assert pass_key(read(plain)) != pass_key(read({**plain, "use_bias": "false"}))


def test_model_0_is_the_job_as_given(draw):
    reports = []

    class Observer:
        def started(self, candidate, parameters, n_models):
            assert n_models == 6

        def epoch_ended(self, report):
            reports.append(dict(zip(report.model_M, report.train_loss_M, strict=True)))

        def finished(self, candidate, trained):
            assert trained.n_models == 6

    fit(draw(1), draw(2), read({"num_models": "6"}), seed=3, observer=Observer())

    single = fit(draw(1), draw(2), read({}), seed=3)
    assert [r[0] for r in reports if 0 in r] == [log.train_loss for log in single.history]
    assert len(set(reports[0].values())) == 6


def test_the_best_of_the_models_is_kept(draw):
    found = fit(draw(1), draw(2), read({"num_models": "8"}), seed=3)
    best = found.model.hyperparameters

    chosen = {n: str(best[n]) for n in ("learning_rate", "wd", "l1", "lr_scheduler_factor")}
    again = fit(draw(1), draw(2), read({"num_models": "8"}), seed=3)
    single = fit(draw(1), draw(2), read({}), seed=3)

    name = "validation:binary_classification_accuracy"
    assert bits(found) == bits(again)
    assert found.metrics[name] >= single.metrics[name]
    assert found.number == 0 or chosen["learning_rate"] != "0.1"
    assert found.model.metrics["n_looks"] > len(found.history)


def test_an_automatic_weight_serves_the_criterion(draw, split_of):
    rare = draw(1, n=4000)
    keep = (rare.label_N == 0) | (np.arange(len(rare)) % 20 == 0)
    few = split_of(rare.features_ND[keep], rare.label_N[keep])
    criterion = {"binary_classifier_model_selection_criteria": "f_beta"}

    scores = {
        weight: fit(few, few, read({**criterion, "positive_example_weight_mult": weight}), seed=0)
        for weight in ("1", "auto", "balanced")
    }

    f1 = {name: found.metrics["validation:binary_f_beta"] for name, found in scores.items()}
    assert f1["auto"] >= max(f1["1"], f1["balanced"])
    ratio = (few.label_N == 0).sum() / few.label_N.sum()
    chosen = scores["auto"].model.hyperparameters["positive_example_weight_mult"]
    assert chosen == pytest.approx(ratio ** (scores["auto"].number / 4))


def test_without_validation_training_rows_choose_and_calibrate(draw):
    found = fit(draw(1), None, read({}), seed=3)

    assert {name.split(":")[0] for name in found.metrics} == {"train"}
    assert found.metrics["train:roc_auc_score"] > 0.8
    # early stopping watches the loss of all training rows at the end of the epoch
    assert found.metrics["train:objective_loss"] == pytest.approx(
        found.history[found.best_epoch].validation_loss, rel=1e-6
    )


def test_told_to_stop_the_best_model_so_far_is_kept(draw):
    calls = []

    def after_two_epochs():
        calls.append(None)
        return len(calls) > 2

    stopped = fit(draw(1), draw(2), read({}), seed=3, should_stop=after_two_epochs)

    assert bits(stopped)[0] == bits(fit(draw(1), draw(2), read({"epochs": "2"}), seed=3))[0]
    assert stopped.model.metrics["stopped_early"]


def test_told_to_stop_at_once_there_is_a_model_all_the_same(draw):
    found = fit(draw(1), draw(2), read({}), seed=3, should_stop=lambda: True)

    assert found.metrics["validation:objective_loss"] > 0.0
