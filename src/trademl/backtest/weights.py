"""Weights of a portfolio: expected return, less risk, less what it costs to get there.

Shape letters: A assets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SWEEPS = 200
_HALVINGS = 60
_SAME = 1e-12


def best_weights(
    expected_A: NDArray[np.float64],
    covariance_AA: NDArray[np.float64],
    held_A: NDArray[np.float64],
    cost_A: NDArray[np.float64],
    *,
    risk_aversion: float,
    max_weight: float = 1.0,
    budget: float = 1.0,
) -> NDArray[np.float64]:
    """Return the weights w that maximise ``w'e - risk_aversion / 2 w'Cw - cost'|w - held|``.

    Parameters
    ----------
    expected_A : ndarray
        Expected return of each asset over the period; NaN for one that cannot be bought, which
        gets a weight of 0.
    covariance_AA : ndarray
        Of the returns over the period, positive definite.
    held_A, cost_A : ndarray
        Weights now, and what trading a weight of 1 costs, as a share of the account.
    risk_aversion : float
        Above 0.
    max_weight, budget : float
        Largest weight of an asset, and of all together; no asset is sold short.

    Notes
    -----
    For a price on the budget, coordinate descent solves the box-constrained problem exactly; the
    price is found by halving. The turnover term leaves a position alone whose gain does not pay
    for the trade.
    """
    can_A = np.isfinite(expected_A)
    gain_A = np.where(can_A, expected_A, 0.0)
    upper_A = np.where(can_A, max_weight, 0.0)

    def at(price: float) -> NDArray[np.float64]:
        return _descend(gain_A - price, risk_aversion * covariance_AA, held_A, cost_A, upper_A)

    free_A = at(0.0)
    if free_A.sum() <= budget:
        return free_A
    low, high = 0.0, float(gain_A.max() + cost_A.max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle).sum() > budget else (low, middle)
    return at(high)


def _descend(
    gain_A: NDArray[np.float64],
    risk_AA: NDArray[np.float64],
    held_A: NDArray[np.float64],
    cost_A: NDArray[np.float64],
    upper_A: NDArray[np.float64],
) -> NDArray[np.float64]:
    weight_A = np.clip(held_A, 0.0, upper_A)
    for _ in range(_SWEEPS):
        before_A = weight_A.copy()
        for a in range(len(weight_A)):
            curve = risk_AA[a, a]
            pull = gain_A[a] - risk_AA[a] @ weight_A + curve * weight_A[a]
            bought, sold = (pull - cost_A[a]) / curve, (pull + cost_A[a]) / curve
            best = bought if bought > held_A[a] else min(sold, held_A[a])
            weight_A[a] = min(max(best, 0.0), upper_A[a])
        if np.abs(weight_A - before_A).max() < _SAME:
            break
    return weight_A


def shrunk_covariance(
    return_NA: NDArray[np.float64], *, periods: float, shrinkage: float
) -> NDArray[np.float64]:
    """Return the covariance over ``periods`` steps of returns, drawn towards its diagonal.

    Parameters
    ----------
    return_NA : ndarray, shape (N, A)
        Returns of past steps, 2 or more.
    shrinkage : float
        0 keeps the sample's covariances, 1 leaves variances alone.
    """
    sample_AA = np.atleast_2d(np.cov(return_NA, rowvar=False)) * periods
    diagonal_AA = np.diag(np.diag(sample_AA) + 1e-8)
    return np.asarray((1 - shrinkage) * sample_AA + shrinkage * diagonal_AA)
