"""A lower confidence bound of a proportion, such as a precision."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_lower_bound(proportion: float, n: float, *, confidence: float) -> float:
    """Return the one-sided lower bound of a proportion that was found in ``n`` trials.

    Parameters
    ----------
    proportion : float
        Between 0 and 1.
    n : float
        Trials, above 0; an effective number of independent ones need not be whole.
    confidence : float
        One-sided, between 0 and 1: 0.975 gives the lower end of the usual 95 % interval.

    Notes
    -----
    Unlike the normal bound it stays within 0 and 1, and a proportion of 1 found in few trials is
    far below 1. Source: Wilson (1927), "Probable inference, the law of succession, and statistical
    inference", Journal of the American Statistical Association 22.

    Examples
    --------
    >>> round(wilson_lower_bound(1.0, 17, confidence=0.975), 3)
    0.816
    """
    z = NormalDist().inv_cdf(confidence)
    centre = proportion + z**2 / (2.0 * n)
    reach = z * math.sqrt(proportion * (1.0 - proportion) / n + z**2 / (4.0 * n**2))
    return max(0.0, (centre - reach) / (1.0 + z**2 / n))
