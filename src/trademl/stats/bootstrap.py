"""Lower confidence bound of a mean over dependent rows, by a block bootstrap.

Shape letters: N rows in order of time, R resamples, M blocks in a resample.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MIN_BLOCKS = 5  # below this a resample hardly differs from the sample, and any bound is a lie
_CHUNK = 1_000_000  # block starts drawn at once


def overlap_length(start_N: NDArray[np.int64], end_N: NDArray[np.int64]) -> int:
    """Return how many consecutive rows share information, from the spans of their labels.

    Parameters
    ----------
    start_N, end_N : ndarray of int64, shape (N,)
        Span of each row's label in nanoseconds, ``start_N`` not decreasing.

    Returns
    -------
    int
        One plus the mean number of later rows that begin before a row has ended, rounded up, and
        at least the cube root of N (Hall, Horowitz and Jing, 1995).
    """
    n = len(start_N)
    if n == 0:
        return 1
    later_N = np.searchsorted(start_N, end_N, side="left") - np.arange(1, n + 1)
    overlap = math.ceil(float(np.maximum(later_N, 0).mean()))
    return min(n, max(overlap + 1, math.ceil(float(np.cbrt(n)) - 1e-9)))


def lower_bound_of_mean(
    value_N: NDArray[np.float64],
    *,
    block_length: int,
    confidence: float,
    seed: int,
    n_resamples: int = 4000,
) -> float | None:
    """Return a one-sided lower confidence bound of the mean of dependent rows.

    From the circular block bootstrap (Politis and Romano, 1992), the lower of two: its percentile,
    which follows a skewed distribution, and the normal bound with its standard error, which goes
    on where so high a confidence leaves no resample beyond it.

    Parameters
    ----------
    value_N : ndarray of float64, shape (N,)
        In order of time, so that neighbours are the rows that depend on each other.
    block_length : int
        Rows in a block, see `overlap_length`.
    confidence : float
        Between 0 and 1, for example 0.95.
    seed : int
        The same seed gives the same bound.

    Returns
    -------
    float or None
        None where there are fewer than `MIN_BLOCKS` blocks: too little to tell.
    """
    n = len(value_N)
    if n // block_length < MIN_BLOCKS:
        return None
    wrapped = np.concatenate([value_N, value_N[: block_length - 1]])
    total = np.concatenate([[0.0], np.cumsum(wrapped)])
    block_mean_N = (total[block_length:] - total[:-block_length]) / block_length
    n_blocks = math.ceil(n / block_length)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // n_blocks)
    means = [
        block_mean_N[rng.integers(n, size=(min(rows, n_resamples - done), n_blocks))].mean(axis=1)
        for done in range(0, n_resamples, rows)
    ]
    mean_R = np.concatenate(means)
    percentile = float(np.quantile(mean_R, 1.0 - confidence))
    normal = float(value_N.mean() - NormalDist().inv_cdf(confidence) * mean_R.std())
    return min(percentile, normal)
