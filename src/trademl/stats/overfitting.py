"""Whether the best of many configurations stays good where it was not chosen: CSCV.

Shape letters: T observations in order of time, N configurations, S stretches, C combinations.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Overfitting:
    """What combinatorially symmetric cross-validation found; all are shares of combinations.

    Parameters
    ----------
    pbo : float
        The configuration that was best in one half ranks at or below the median in the other: the
        probability of backtest overfitting. About a half where all configurations are alike,
        whether they earn or not.
    loss_probability : float
        It loses money in the other half.
    n_combinations, n_configurations : int
    """

    pbo: float
    loss_probability: float
    n_combinations: int
    n_configurations: int


def overfitting(return_TN: NDArray[np.float64], *, n_stretches: int = 8) -> Overfitting | None:
    """Return how often the best configuration of one half of time disappoints in the other.

    Time is cut into stretches; each way of taking half of them to choose on leaves the other half
    to judge on. A configuration is as good as its Sharpe ratio there.

    Parameters
    ----------
    return_TN : ndarray of float64, shape (T, N)
        What each configuration earned on each observation, 0 where it did nothing.
    n_stretches : int
        Even, at least 2.

    Returns
    -------
    Overfitting or None
        None with fewer than two configurations, or fewer observations than two a stretch.

    Notes
    -----
    Source: Bailey, Borwein, Lopez de Prado and Zhu (2017), "The probability of backtest
    overfitting", Journal of Computational Finance 20(4), sections 2.2 and 4.
    """
    n_rows, n_configurations = return_TN.shape
    if n_configurations < 2 or n_rows < 2 * n_stretches:
        return None
    parts = np.array_split(return_TN, n_stretches)
    sums_S3N = np.array(
        [[np.full(n_configurations, len(p)), p.sum(0), (p**2).sum(0)] for p in parts], np.float64
    )
    total_3N = sums_S3N.sum(0)
    halves = list(combinations(range(n_stretches), n_stretches // 2))
    chosen_C3N = np.array([sums_S3N[list(half)].sum(0) for half in halves])
    best_C = _sharpe(chosen_C3N).argmax(1)
    other_CN = _sharpe(total_3N - chosen_C3N)
    found_C1 = np.take_along_axis(other_CN, best_C[:, None], 1)
    rank_C = (other_CN < found_C1).sum(1) + ((other_CN == found_C1).sum(1) + 1) / 2
    return Overfitting(
        pbo=float((rank_C / (n_configurations + 1) <= 0.5).mean()),
        loss_probability=float((found_C1 < 0).mean()),
        n_combinations=len(halves),
        n_configurations=n_configurations,
    )


def _sharpe(sums_C3N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Sharpe ratios from count, sum and sum of squares; 0 where nothing varies."""
    n_CN, sum_CN, squares_CN = sums_C3N[:, 0], sums_C3N[:, 1], sums_C3N[:, 2]
    mean_CN = sum_CN / n_CN
    variance_CN = np.maximum(squares_CN / n_CN - mean_CN**2, 0.0)
    return np.divide(
        mean_CN, np.sqrt(variance_CN), out=np.zeros_like(mean_CN), where=variance_CN > 0.0
    )
