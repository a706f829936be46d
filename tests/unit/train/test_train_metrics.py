"""Confusion matrix and its shares, against counts done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.train.metrics import (
    Confusion,
    accuracy,
    binary_metrics,
    confusion,
    f_beta,
    precision,
    recall,
)

COUNTS = Confusion(true_positives=6, false_positives=2, false_negatives=4, true_negatives=8)


def test_confusion_counts_every_row_once():
    label = np.array([1, 1, 0, 0, 1])
    predicted = np.array([1, 0, 1, 0, 1])

    assert confusion(label, predicted) == Confusion(2, 1, 1, 1)


def test_shares_by_hand():
    assert precision(COUNTS) == 6 / 8
    assert recall(COUNTS) == 6 / 10
    assert accuracy(COUNTS) == 14 / 20
    assert f_beta(COUNTS) == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    assert f_beta(COUNTS, beta=2.0) == pytest.approx(5 * 0.75 * 0.6 / (4 * 0.75 + 0.6))


def test_undefined_shares_are_none():
    nothing_flagged, nothing_positive = Confusion(0, 0, 3, 1), Confusion(0, 2, 0, 5)

    assert precision(nothing_flagged) is None
    assert recall(nothing_positive) is None
    assert f_beta(Confusion(0, 0, 0, 9)) is None
    assert accuracy(Confusion(0, 0, 0, 0)) is None


def test_metrics_have_the_published_names():
    found = binary_metrics(np.array([1, 0]), np.array([0.0, 0.0]), np.array([True, True]), beta=1.0)

    assert found == {
        "objective_loss": pytest.approx(np.log(2.0)),
        "binary_classification_accuracy": 0.5,
        "binary_f_beta": pytest.approx(2 / 3),
        "precision": 0.5,
        "recall": 1.0,
        "roc_auc_score": 0.5,
    }
