"""How sure a Sharpe ratio is above another, after a choice among many; none is annualised.

Shape letter: N returns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EULER = 0.5772156649015329
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class SharpeRatio:
    """A Sharpe ratio per observation, and what the error of its estimate depends on.

    Parameters
    ----------
    ratio : float
        Mean over standard deviation of the returns, per observation.
    n : float
        Observations; an effective number of independent ones need not be whole.
    skew, kurtosis : float
        Third and fourth standardised moments; 0 and 3 for a normal distribution.
    """

    ratio: float
    n: float
    skew: float = 0.0
    kurtosis: float = 3.0

    @property
    def relative_variance(self) -> float:
        """Variance of the estimate, times ``n - 1``.

        Never 0: for returns of two values that are as extreme as can be it is, in theory.
        """
        found = 1.0 - self.skew * self.ratio + (self.kurtosis - 1.0) / 4.0 * self.ratio**2
        return max(found, 1e-12)


def sharpe_ratio(return_N: NDArray[Any], *, n: float | None = None) -> SharpeRatio | None:
    """Return the Sharpe ratio of returns.

    Parameters
    ----------
    return_N : ndarray of shape (N,)
        Profits in any unit.
    n : float, optional
        The effective number of independent ones; N where left out.

    Returns
    -------
    SharpeRatio or None
        None where fewer than two returns, or all of them equal, leave it undefined.
    """
    return_N = np.asarray(return_N, np.float64)
    if len(return_N) < 2 or np.ptp(return_N) == 0.0:
        return None
    centred_N = return_N - return_N.mean()
    deviation = float(np.sqrt(np.mean(centred_N**2)))
    standard_N = centred_N / deviation
    return SharpeRatio(
        ratio=float(return_N.mean()) / deviation,
        n=float(len(return_N)) if n is None else n,
        skew=float(np.mean(standard_N**3)),
        kurtosis=float(np.mean(standard_N**4)),
    )


def probabilistic_sharpe_ratio(found: SharpeRatio, benchmark: float = 0.0) -> float:
    """Return the probability that the true Sharpe ratio is above a benchmark.

    Notes
    -----
    Source: Bailey and Lopez de Prado (2012), "The Sharpe ratio efficient frontier", Journal of
    Risk 15(2), equation 11.
    """
    if found.n <= 1.0:
        return 0.0
    error = math.sqrt(found.relative_variance / (found.n - 1.0))
    return _NORMAL.cdf((found.ratio - benchmark) / error)


def expected_maximum(n_trials: float, *, variance: float) -> float:
    """Return the Sharpe ratio to be expected of the best of many that have no skill at all.

    Parameters
    ----------
    n_trials : float
        Independent trials, at least 1; one trial gives 0.
    variance : float
        Of the Sharpe ratios over the trials.

    Notes
    -----
    Source: Bailey and Lopez de Prado (2014), "The deflated Sharpe ratio: correcting for selection
    bias, backtest overfitting, and non-normality", Journal of Portfolio Management 40(5).

    Examples
    --------
    >>> round(expected_maximum(10, variance=1.0), 2)
    1.57
    """
    if n_trials <= 1.0:
        return 0.0
    quantile = _NORMAL.inv_cdf
    high, higher = quantile(1.0 - 1.0 / n_trials), quantile(1.0 - 1.0 / (n_trials * math.e))
    return math.sqrt(variance) * ((1.0 - _EULER) * high + _EULER * higher)


def deflated_sharpe_ratio(
    found: SharpeRatio, n_trials: float, *, variance: float | None = None
) -> float:
    """Return the probability that the true Sharpe ratio is above what luck gives the best of many.

    Parameters
    ----------
    n_trials : float
        How many were tried, this one included.
    variance : float, optional
        Of the Sharpe ratios over the trials; that of trials without skill, ``1 / (n - 1)``, where
        left out.
    """
    if found.n <= 1.0:
        return 0.0
    variance = 1.0 / (found.n - 1.0) if variance is None else variance
    return probabilistic_sharpe_ratio(found, expected_maximum(n_trials, variance=variance))


def minimum_track_record(
    found: SharpeRatio, benchmark: float = 0.0, *, confidence: float
) -> float | None:
    """Return how many observations would prove a Sharpe ratio like this to be above a benchmark.

    Returns
    -------
    float or None
        None where it is not above the benchmark: no length would.

    Notes
    -----
    Source: Bailey and Lopez de Prado (2012), as above, equation 13.
    """
    if found.ratio <= benchmark:
        return None
    z = _NORMAL.inv_cdf(confidence)
    return 1.0 + found.relative_variance * (z / (found.ratio - benchmark)) ** 2
