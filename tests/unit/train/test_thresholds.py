"""The threshold rule against a search in plain Python over every candidate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.errors import DataError
from trademl.train.metrics import accuracy, confusion, f_beta, precision, recall
from trademl.train.thresholds import Threshold, calibrate_threshold

rows = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), min_size=1, max_size=30)


def slow(label, score, criterion, target, beta):
    """Return the best threshold by trying each distinct score and counting."""
    found = []
    for cut in sorted(set(score.tolist())):
        counts = confusion(label, score >= cut)
        p, r = precision(counts) or 0.0, recall(counts) or 0.0
        if criterion == "accuracy":
            found.append((True, accuracy(counts), 0.0, cut))
        elif criterion == "f_beta":
            found.append((True, f_beta(counts, beta=beta) or 0.0, 0.0, cut))
        else:
            wanted, targeted = (p, r) if criterion == "precision_at_target_recall" else (r, p)
            found.append((targeted >= target, wanted, targeted, cut))
    met = [row for row in found if row[0]]
    if met:
        best = max(met, key=lambda row: row[1:])
        return Threshold(best[3], criterion, best[1], True)
    nearest = max(found, key=lambda row: (row[2], row[1], row[3]))
    return Threshold(nearest[3], criterion, nearest[2], False)


@pytest.mark.parametrize(
    "criterion",
    ["accuracy", "f_beta", "precision_at_target_recall", "recall_at_target_precision"],
)
@given(rows=rows, target=st.sampled_from([0.1, 0.25, 0.5, 0.8, 0.99]))
def test_the_rule_agrees_with_trying_every_candidate(criterion, rows, target):
    label, score = (np.array(column) for column in zip(*rows, strict=True))
    score = score / 10

    found = calibrate_threshold(
        label, score, criterion=criterion, target_recall=target, target_precision=target, beta=0.7
    )

    expected = slow(label, score, criterion, target, 0.7)
    assert found.is_target_met == expected.is_target_met
    assert found.criterion_value == pytest.approx(expected.criterion_value)
    if criterion != "f_beta":  # its ties hang on the last bit of a rounded beta
        assert found.value == expected.value


def test_target_is_met_at_equality():
    label, score = np.array([1, 0, 1, 1, 1]), np.array([0.9, 0.8, 0.7, 0.6, 0.5])

    found = calibrate_threshold(
        label, score, criterion="precision_at_target_recall", target_recall=0.25
    )

    assert found == Threshold(0.9, "precision_at_target_recall", 1.0, True)


def test_target_out_of_reach_takes_the_nearest_and_says_so():
    label, score = np.array([0, 1, 0]), np.array([0.9, 0.8, 0.1])

    found = calibrate_threshold(
        label, score, criterion="recall_at_target_precision", target_precision=0.9
    )

    assert found == Threshold(0.8, "recall_at_target_precision", 0.5, False)


def test_a_tie_of_precision_takes_the_higher_recall():
    label, score = np.array([1, 1, 0, 0]), np.array([0.9, 0.8, 0.7, 0.1])

    found = calibrate_threshold(
        label, score, criterion="precision_at_target_recall", target_recall=0.4
    )

    assert found.value == 0.8  # 1 of 1 above 0.9, 2 of 2 above 0.8


def test_accuracy_ties_take_the_higher_threshold():
    label, score = np.array([0, 1, 0, 1]), np.array([0.9, 0.8, 0.7, 0.6])

    # right of four: 1, 2, 1, 2
    assert calibrate_threshold(label, score, criterion="accuracy").value == 0.8


def test_loss_function_knows_no_threshold():
    found = calibrate_threshold(np.array([1]), np.array([0.2]), criterion="loss_function")

    assert found.value == 0.5


@pytest.mark.parametrize("label", [np.zeros(3), np.ones(3)])
@pytest.mark.parametrize("criterion", ["accuracy", "f_beta", "precision_at_target_recall"])
def test_one_class_alone_does_not_break(label, criterion):
    found = calibrate_threshold(label, np.array([0.1, 0.2, 0.2]), criterion=criterion)

    assert found.value in (0.1, 0.2)


def test_an_empty_sample_is_refused():
    with pytest.raises(DataError, match="calibration sample is empty"):
        calibrate_threshold(np.array([]), np.array([]), criterion="accuracy")
