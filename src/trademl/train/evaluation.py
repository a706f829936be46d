"""What a model is worth on labelled rows, with the base rate beside every figure.

Shape letters: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.stats.probability import brier_score, log_loss, reliability_bins, roc_auc
from trademl.train.metrics import confusion, f_beta, precision, recall


def evaluate(
    label_N: NDArray[Any],
    score_N: NDArray[Any],
    pnl_N: NDArray[Any],
    *,
    threshold: float,
    cuts: Sequence[float] = (0.5, 0.75),
) -> dict[str, Any]:
    """Return a report that JSON can hold; an undefined figure is None.

    Parameters
    ----------
    label_N, score_N, pnl_N : ndarray of shape (N,)
        0 or 1; probability of 1; net profit per unit in quote currency.
    threshold : float
        The model's calibrated threshold.
    cuts : sequence of float
        Further thresholds to look at: how good are its most certain predictions?

    Returns
    -------
    dict
        ``n``, ``base_rate``, ``base_mean_pnl``, ``base_sum_pnl`` (of taking every order),
        ``roc_auc``, ``log_loss`` (nats), ``brier``, ``calibration`` (ten bins), and
        ``thresholds``: for the calibrated one and each cut, what is flagged at or above it.

    Raises
    ------
    DataError
        If the arrays differ in length.
    """
    if not len(label_N) == len(score_N) == len(pnl_N):
        raise DataError(
            f"{len(label_N)} labels, {len(score_N)} scores and {len(pnl_N)} profits: "
            "expected the same number of each"
        )
    named = [("calibrated", threshold), *((f"{cut:g}", cut) for cut in cuts)]
    return {
        "n": len(label_N),
        "base_rate": _mean(label_N),
        "base_mean_pnl": _mean(pnl_N),
        "base_sum_pnl": float(np.sum(pnl_N, dtype=np.float64)),
        "roc_auc": roc_auc(label_N, score_N),
        "log_loss": log_loss(label_N, score_N),
        "brier": brier_score(label_N, score_N),
        "calibration": reliability_bins(label_N, score_N),
        "thresholds": [
            {"name": name, **evaluate_at(label_N, score_N, pnl_N, threshold=cut)}
            for name, cut in named
        ],
    }


def evaluate_at(
    label_N: NDArray[Any], score_N: NDArray[Any], pnl_N: NDArray[Any], *, threshold: float
) -> dict[str, Any]:
    """Return what a single threshold flags, and what the flagged orders earned."""
    is_flagged_N = np.asarray(score_N) >= threshold
    counts = confusion(label_N, is_flagged_N)
    flagged_pnl = np.asarray(pnl_N)[is_flagged_N]
    return {
        "threshold": float(threshold),
        "confusion": asdict(counts),
        "precision": precision(counts),
        "recall": recall(counts),
        "f1": f_beta(counts),
        "n_flagged": counts.flagged,
        "sum_pnl": float(np.sum(flagged_pnl, dtype=np.float64)),
        "mean_pnl": _mean(flagged_pnl),
    }


def _mean(values: NDArray[Any]) -> float | None:
    return float(np.mean(values, dtype=np.float64)) if len(values) else None
