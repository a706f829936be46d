"""Confidence intervals of any figure of a series, by a circular block bootstrap.

Shape letters: N observations in order of time, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.stats.bootstrap import MIN_BLOCKS

Figures = Callable[[NDArray[Any]], dict[str, float | None]]


def resamples(
    value_N: NDArray[Any], *, block_length: int, seed: int, n_resamples: int
) -> Iterator[NDArray[Any]]:
    """Yield resamples of N observations, whole blocks at a time (Politis and Romano, 1992)."""
    n, rng = len(value_N), np.random.default_rng(seed)
    n_blocks = math.ceil(n / block_length)
    within = np.arange(block_length)
    for _ in range(n_resamples):
        start = rng.integers(n, size=n_blocks)
        yield value_N[((start[:, None] + within) % n).ravel()[:n]]


def intervals(
    value_N: NDArray[Any],
    figures: Figures,
    *,
    block_length: int,
    confidence: float = 0.95,
    seed: int = 7,
    n_resamples: int = 500,
) -> dict[str, tuple[float, float] | None]:
    """Return a two-sided percentile interval of each figure of a series.

    Parameters
    ----------
    figures : callable
        Takes a resample, returns figures by name; None where one is undefined.
    block_length : int
        Observations that depend on each other, see `trademl.stats.bootstrap.overlap_length`.

    Returns
    -------
    dict
        None for a figure that is undefined in a tenth of the resamples, and for every one where
        there are fewer than `MIN_BLOCKS` blocks.
    """
    names = figures(value_N)
    if len(value_N) // block_length < MIN_BLOCKS:
        return dict.fromkeys(names)
    drawn = resamples(value_N, block_length=block_length, seed=seed, n_resamples=n_resamples)
    found = [figures(sample) for sample in drawn]
    edges = ((1 - confidence) / 2, (1 + confidence) / 2)
    bounds: dict[str, tuple[float, float] | None] = {}
    for name in names:
        values = [v for f in found if (v := f[name]) is not None and math.isfinite(v)]
        bounds[name] = None
        if len(values) > 0.9 * len(found):
            low, high = np.quantile(values, edges)
            bounds[name] = (float(low), float(high))
    return bounds
