"""How good predicted probabilities are: ranking, log loss, Brier score, calibration.

Shape letters: N rows.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]


class ReliabilityBin(TypedDict):
    """Rows whose score lies in [low, high), the last bin including 1."""

    low: float
    high: float
    n: int
    mean_score: float | None
    positive_rate: float | None


def roc_auc(label_N: Numbers, score_N: Numbers) -> float | None:
    """Return the chance that a positive row scores above a negative one, ties counting half.

    The Mann-Whitney statistic over mid-ranks (Hanley and McNeil, 1982). None where one class is
    missing.

    Examples
    --------
    >>> roc_auc(np.array([0, 1, 1]), np.array([0.2, 0.2, 0.9]))
    0.75
    """
    is_positive = np.asarray(label_N) > 0.5
    n_positive, n_negative = int(is_positive.sum()), int((~is_positive).sum())
    if n_positive == 0 or n_negative == 0:
        return None
    _, group, counts = np.unique(np.asarray(score_N), return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    twice_rank = 2 * last_rank - counts + 1  # an integer: exact in any order of summation
    twice_sum = int(twice_rank[group][is_positive].sum())
    return (twice_sum - n_positive * (n_positive + 1)) / (2 * n_positive * n_negative)


def logistic_loss(label_N: Numbers, logit_N: Numbers) -> float:
    """Return the mean negative log likelihood of at least one row, in nats, from logits."""
    logit_N = np.asarray(logit_N, dtype=np.float64)
    return float(np.mean(np.logaddexp(0.0, logit_N) - np.asarray(label_N) * logit_N))


def log_loss(label_N: Numbers, score_N: Numbers, *, floor: float = 1e-7) -> float | None:
    """Return the mean negative log likelihood in nats, from probabilities.

    Probabilities are kept ``floor`` away from 0 and 1: a float32 score can be exactly either.
    None without rows.
    """
    if len(label_N) == 0:
        return None
    p_N = np.clip(np.asarray(score_N, dtype=np.float64), floor, 1.0 - floor)
    label_N = np.asarray(label_N, dtype=np.float64)
    return float(-np.mean(label_N * np.log(p_N) + (1.0 - label_N) * np.log1p(-p_N)))


def brier_score(label_N: Numbers, score_N: Numbers) -> float | None:
    """Return the mean squared error of probabilities (Brier, 1950); None without rows."""
    if len(label_N) == 0:
        return None
    error_N = np.asarray(score_N, dtype=np.float64) - np.asarray(label_N, dtype=np.float64)
    return float(np.mean(error_N**2))


def reliability_bins(
    label_N: Numbers, score_N: Numbers, *, n_bins: int = 10
) -> list[ReliabilityBin]:
    """Return how often each bin of equal width came true, beside its mean score."""
    score_N = np.asarray(score_N, dtype=np.float64)
    bin_N = np.clip((score_N * n_bins).astype(np.int64), 0, n_bins - 1)
    counts = np.bincount(bin_N, minlength=n_bins)
    scores = np.bincount(bin_N, weights=score_N, minlength=n_bins)
    positives = np.bincount(bin_N, weights=np.asarray(label_N, np.float64), minlength=n_bins)
    return [
        ReliabilityBin(
            low=i / n_bins,
            high=(i + 1) / n_bins,
            n=int(n),
            mean_score=float(scores[i] / n) if n else None,
            positive_rate=float(positives[i] / n) if n else None,
        )
        for i, n in enumerate(counts)
    ]
