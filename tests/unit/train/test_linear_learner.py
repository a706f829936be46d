"""Training finds a planted signal, repeats bit for bit, and refuses what it cannot use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trademl.errors import ConfigError, DataError, TrainError
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.linear_learner import fit
from trademl.train.metrics import confusion, precision, recall
from trademl.train.thresholds import calibrate_threshold

FAST = {
    "num_models": "1",
    "predictor_type": "binary_classifier",
    "mini_batch_size": "100",
    "learning_rate": "0.05",
    "binary_classifier_model_selection_criteria": "precision_at_target_recall",
    "target_recall": "0.25",
}


def train(draw, *, seed=0, data=(1, 2), signal=1.5, test=None, **values):
    parameters = LinearLearnerParameters.from_strings({**FAST, **values})
    splits = [draw(s, signal=signal) for s in data]
    return fit(*splits, parameters, seed=seed, test=test)


def test_a_planted_signal_is_found(draw):
    found = train(draw)

    # a perfect model of this signal ranks about 0.87 of the pairs right
    assert found.metrics["validation:roc_auc_score"] > 0.8
    assert found.metrics["validation:precision"] > 0.9
    assert found.metrics["validation:recall"] >= 0.25


def test_noise_ranks_no_better_than_chance(draw):
    assert abs(train(draw, signal=0.0).metrics["validation:roc_auc_score"] - 0.5) < 0.07


def test_the_weights_point_along_the_signal(draw):
    weights = train(draw, epochs="15", l1="0.01").model.weights_D

    assert weights[0] > 0.5
    assert weights[1] < -0.5
    assert np.abs(weights[2:]).max() < 0.2


def test_same_seed_gives_the_same_bits(draw):
    first, second = train(draw, seed=4), train(draw, seed=4)

    assert first.model.weights_D.tobytes() == second.model.weights_D.tobytes()
    assert (first.model.bias, first.model.threshold) == (second.model.bias, second.model.threshold)
    assert first.metrics == second.metrics
    assert train(draw, seed=5).model.weights_D.tobytes() != first.model.weights_D.tobytes()


def test_the_state_of_numpy_is_neither_read_nor_changed(draw):
    np.random.seed(1)  # noqa: NPY002
    first = train(draw)
    drawn = np.random.rand()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002

    assert np.random.rand() == drawn  # noqa: NPY002
    assert train(draw).model.weights_D.tobytes() == first.model.weights_D.tobytes()


def test_validation_and_test_never_move_the_scaler(draw):
    wild = draw(2)
    wild.features_ND[:] *= 1000.0
    parameters = LinearLearnerParameters.from_strings({**FAST, "epochs": "1"})

    tame = fit(draw(1), draw(2), parameters, seed=0)
    found = fit(draw(1), wild, parameters, seed=0)

    np.testing.assert_array_equal(found.model.mean_D, tame.model.mean_D)
    np.testing.assert_array_equal(found.model.weights_D, tame.model.weights_D)


def test_metrics_are_those_of_the_served_labels(draw):
    found, validation = train(draw), draw(2)

    _, label = found.model.predict(validation.features_ND)

    counts = confusion(validation.label_N, label)
    assert found.metrics["validation:precision"] == precision(counts)
    assert found.metrics["validation:recall"] == recall(counts)


def test_the_threshold_is_the_rule_applied_to_the_best_epoch(draw):
    found, validation = train(draw), draw(2)

    expected = calibrate_threshold(
        validation.label_N,
        found.model.scores(validation.features_ND),
        criterion="precision_at_target_recall",
        target_recall=0.25,
    )

    assert found.model.threshold == expected.value
    assert found.history[found.best_epoch].watched == expected.criterion_value
    assert expected.criterion_value == max(epoch.watched for epoch in found.history)


def test_test_metrics_come_only_with_a_test_split(draw):
    without, with_test = train(draw), train(draw, test=draw(3))

    assert not any(name.startswith("test:") for name in without.metrics)
    assert with_test.metrics["test:roc_auc_score"] > 0.8
    assert with_test.model.weights_D.tobytes() == without.model.weights_D.tobytes()


def test_training_stops_when_patience_ends(draw):
    impatient = train(
        draw, epochs="40", early_stopping_patience="2", early_stopping_tolerance="0.9"
    )
    patient = train(draw, epochs="12", early_stopping_patience="13", early_stopping_tolerance="0.9")

    assert len(impatient.history) == 3  # the first epoch, then two without a gain of 90 %
    assert len(patient.history) == 12


def test_without_a_criterion_given_the_loss_is_watched(draw):
    values = {k: v for k, v in FAST.items() if not k.startswith(("binary", "target"))}
    parameters = LinearLearnerParameters.from_strings(values)

    found = fit(draw(1), draw(2), parameters, seed=0)

    assert [e.watched for e in found.history] == [e.validation_loss for e in found.history]
    assert found.metrics["validation:objective_loss"] == pytest.approx(
        min(e.validation_loss for e in found.history), rel=1e-6
    )


def test_a_heavier_positive_class_raises_scores(draw):
    light, heavy = (
        train(draw, positive_example_weight_mult=w).model.scores(draw(2).features_ND).mean()
        for w in ("0.1", "10")
    )

    assert light < 0.35 < 0.65 < heavy


def test_balanced_weights_the_classes_alike(split_of, draw):
    rare = draw(1)
    keep = (rare.label_N == 0) | (np.arange(len(rare)) % 10 == 0)
    few = split_of(rare.features_ND[keep], rare.label_N[keep])
    parameters = LinearLearnerParameters.from_strings(
        {**FAST, "positive_example_weight_mult": "balanced"}
    )
    n_negative, n_positive = (few.label_N == 0).sum(), few.label_N.sum()
    by_number = replace(parameters, positive_example_weight_mult=float(n_negative / n_positive))

    balanced, numbered = (fit(few, draw(2), p, seed=0) for p in (parameters, by_number))

    assert balanced.model.weights_D.tobytes() == numbered.model.weights_D.tobytes()


def test_strong_l1_leaves_no_weight_of_size(draw):
    weights = train(draw, l1="1", learning_rate="0.001", init_scale="0.001").model.weights_D

    assert np.abs(weights).max() < 0.01


def test_a_batch_larger_than_the_data_is_one_step(draw):
    assert len(train(draw, mini_batch_size="100000", epochs="2").history) == 2


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_alone_is_refused(split_of, draw, label):
    only = split_of(draw(1).features_ND, np.full(1200, label))

    with pytest.raises(DataError, match=f"every label of train is {label:g}: a binary_classifier"):
        fit(only, draw(2), LinearLearnerParameters.from_strings(FAST), seed=0)


def test_a_target_that_no_held_out_row_can_meet_is_said_of_the_model(split_of, draw):
    nothing_earned = split_of(draw(2).features_ND, np.zeros(1200))

    found = fit(draw(1), nothing_earned, LinearLearnerParameters.from_strings(FAST), seed=0)

    assert found.model.metrics["is_target_met"] is False


def test_a_validation_split_of_one_class_has_no_auc(split_of, draw):
    ones = split_of(draw(2).features_ND, np.ones(1200))

    found = fit(draw(1), ones, LinearLearnerParameters.from_strings(FAST), seed=0)

    assert found.metrics["validation:roc_auc_score"] is None


def test_weights_that_explode_name_the_hyperparameters(draw):
    with pytest.raises(TrainError, match="not finite after epoch 0 with learning_rate 1e\\+38"):
        train(draw, learning_rate="1e38", normalize_data="false", wd="1e10")


def test_feature_dim_must_be_the_width(draw):
    with pytest.raises(ConfigError, match="feature_dim is 605, the data have 8 columns"):
        train(draw, feature_dim="605")


def test_a_feature_that_is_not_finite_names_its_cell(draw):
    bad = draw(1)
    bad.features_ND[7, 3] = np.nan

    with pytest.raises(DataError, match="x3 of train row 7 is not finite"):
        fit(bad, draw(2), LinearLearnerParameters.from_strings(FAST), seed=0)


def test_a_label_other_than_0_and_1_names_its_row(draw):
    bad = draw(2)
    bad.label_N[5] = 2

    with pytest.raises(DataError, match=r"label of validation row 5 is 2\.0"):
        fit(draw(1), bad, LinearLearnerParameters.from_strings(FAST), seed=0)


def test_an_empty_split_is_named(draw):
    with pytest.raises(DataError, match="the validation split has no rows"):
        fit(draw(1), draw(2, n=0), LinearLearnerParameters.from_strings(FAST), seed=0)
