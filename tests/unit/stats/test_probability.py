"""Ranking, log loss, Brier and calibration against sums done by hand or in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.stats.probability import (
    brier_score,
    log_loss,
    logistic_loss,
    reliability_bins,
    roc_auc,
)

rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=40)


def auc_by_pairs(label, score):
    pairs = [
        (p, n) for p, y in zip(score, label, strict=True) if y for n in negatives(label, score)
    ]
    if not pairs:
        return None
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def negatives(label, score):
    return [s for s, y in zip(score, label, strict=True) if not y]


@given(rows)
def test_roc_auc_is_the_share_of_pairs_in_order(found):
    label, score = (np.array(column) for column in zip(*found, strict=True))

    assert roc_auc(label, score / 7) == pytest.approx(auc_by_pairs(label, score))


def test_roc_auc_of_one_class_is_undefined():
    assert roc_auc(np.ones(3), np.array([0.1, 0.2, 0.3])) is None


def test_log_loss_by_hand():
    expected = -(math.log(0.8) + math.log(1 - 0.3)) / 2

    assert log_loss(np.array([1, 0]), np.array([0.8, 0.3])) == pytest.approx(expected)


def test_log_loss_of_a_certain_mistake_is_finite():
    assert log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-math.log(1e-7))


def test_logistic_loss_of_a_huge_logit_does_not_overflow():
    assert logistic_loss(np.array([0.0, 1.0]), np.array([1000.0, 1000.0])) == 500.0


def test_brier_score_by_hand():
    assert brier_score(np.array([1, 0]), np.array([0.5, 0.2])) == pytest.approx((0.25 + 0.04) / 2)


def test_no_rows_are_undefined():
    empty = np.array([])

    assert [f(empty, empty) for f in (roc_auc, log_loss, brier_score)] == [None] * 3


def test_reliability_bins_hold_every_row_once():
    bins = reliability_bins(np.array([1, 0, 1, 1]), np.array([0.0, 0.1, 0.19, 1.0]), n_bins=10)

    assert [b["n"] for b in bins] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert bins[1] == {
        "low": 0.1,
        "high": 0.2,
        "n": 2,
        "mean_score": pytest.approx(0.145),
        "positive_rate": 0.5,
    }
    assert bins[2]["positive_rate"] is None
