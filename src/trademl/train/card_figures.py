"""A model's figures on a split, each with an interval and what it must beat.

Shape letters: N rows in order of time, M blocks of neighbouring rows, S sums of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.etl.dataset import Split
from trademl.stats.bootstrap import overlap_length
from trademl.stats.resampling import intervals

CONFIDENCE = 0.95
MOST_BLOCKS = 2000  # longer blocks assume more dependence, not less


@dataclass(frozen=True)
class Figure:
    """A number, its two-sided 95 % interval, and the number beside which it must be read.

    Parameters
    ----------
    value, low, high : float or None
        None where undefined, or where there are too few rows for an interval.
    baseline : float or None
        What needs no model.
    versus : str
        What the baseline is.
    """

    name: str
    split: str
    value: float | None
    low: float | None
    high: float | None
    baseline: float | None
    versus: str


def measured_figures(
    rows: Split,
    score_N: NDArray[np.float32],
    is_flagged_N: NDArray[np.bool_],
    *,
    split: str,
    seed: int,
) -> list[Figure]:
    """Return precision, recall, profit and ranking of a model's flags and scores.

    Parameters
    ----------
    split : str
        How the rows are called.
    seed : int
        Of the bootstrap, whose blocks are as long as orders live side by side.

    Notes
    -----
    The area under the ROC curve is resampled by the placement of each row among the rows of the
    other label (DeLong et al., 1988), which makes it a ratio of sums like the others.
    """
    by_time_N = np.argsort(rows.as_of_N, kind="stable")
    sums_MS = _block_sums(rows, score_N, is_flagged_N, by_time_N)

    def resampled(number_M: NDArray[np.float64]) -> dict[str, float | None]:
        return _values(sums_MS[number_M.astype(np.int64)].sum(axis=0))

    values = _values(sums_MS.sum(axis=0))
    numbers = np.arange(len(sums_MS), dtype=np.float64)
    bounds = intervals(numbers, resampled, block_length=1, confidence=CONFIDENCE, seed=seed)
    every = {
        "precision": (values["base_rate"], "the base rate"),
        "recall": (values["share_flagged"], "as many orders flagged at random"),
        "mean net PnL of a flagged order": (values["mean_pnl"], "every order taken"),
        "ROC AUC": (0.5, "a coin"),
    }
    found = []
    for name, (baseline, versus) in every.items():
        low, high = bounds[name] or (None, None)
        found.append(Figure(name, split, values[name], low, high, baseline, versus))
    return found


def _block_sums(
    rows: Split,
    score_N: NDArray[np.float32],
    is_flagged_N: NDArray[np.bool_],
    by_time_N: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return sums over blocks of time, in the order that `_values` takes them."""
    is_positive_N = rows.label_N > 0.5
    above_N, below_N = _placements(score_N, is_positive_N)
    columns = (
        np.ones(len(rows)), is_positive_N, is_flagged_N, is_flagged_N & is_positive_N,
        rows.pnl_N, np.where(is_flagged_N, rows.pnl_N, 0.0), above_N, below_N,
    )  # fmt: skip
    column_NS = np.stack([np.asarray(c, np.float64)[by_time_N] for c in columns], axis=1)
    length = max(1, overlap_length(rows.as_of_N[by_time_N], rows.exit_N[by_time_N]))
    n_blocks = max(1, min(len(rows) // length, MOST_BLOCKS))
    starts_M = np.arange(n_blocks) * len(rows) // n_blocks
    return np.asarray(np.add.reduceat(column_NS, starts_M, axis=0))


def _placements(
    score_N: NDArray[np.float32], is_positive_N: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of the other label that a row is on the right side of, 0 for the others.

    Ties count a half. The first array is of positive rows, the second of negative ones.
    """
    positive, negative = np.sort(score_N[is_positive_N]), np.sort(score_N[~is_positive_N])
    above_N, below_N = np.zeros(len(score_N)), np.zeros(len(score_N))
    if len(positive) and len(negative):
        low, high = (np.searchsorted(negative, score_N, side) for side in ("left", "right"))
        above_N = np.where(is_positive_N, (low + high) / 2 / len(negative), 0.0)
        low, high = (np.searchsorted(positive, score_N, side) for side in ("left", "right"))
        below_N = np.where(is_positive_N, 0.0, 1 - (low + high) / 2 / len(positive))
    return above_N, below_N


def _values(sum_S: NDArray[np.float64]) -> dict[str, float | None]:
    n, positive, flagged, hits, pnl, earned, above, below = sum_S.tolist()
    up, down = _ratio(above, positive), _ratio(below, n - positive)
    return {
        "precision": _ratio(hits, flagged),
        "recall": _ratio(hits, positive),
        "mean net PnL of a flagged order": _ratio(earned, flagged),
        "ROC AUC": None if up is None or down is None else (up + down) / 2,
        "base_rate": _ratio(positive, n),
        "share_flagged": _ratio(flagged, n),
        "mean_pnl": _ratio(pnl, n),
    }


def _ratio(above: float, below: float) -> float | None:
    return above / below if below > 0 else None
