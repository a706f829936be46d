"""Indicators of several assets at every snapshot of one clock.

Each asset's indicators are made on its own bars, so that a closed market is no row of still prices;
a snapshot then takes those of the asset's last bar.

Shape letters: T snapshots, A assets, M bars of one asset, K indicators.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import ConfigError
from trademl.market.bars import Bars
from trademl.market.quotes import NS_PER_S
from trademl.market.snapshots import NEVER, Snapshots

HORIZONS = (6, 24, 120, 500, 1500)  # bars: about a day to a year of a stock's regular hours
OF_HORIZON = (
    "momentum",  # log of the close over that of `horizon` bars before
    "volatility",  # standard deviation of one-bar log returns
    "sma_gap",  # close over its mean, less 1
    "zscore",  # close less its mean, in standard deviations of closes
    "rsi",  # rises' share of all moves (Cutler's form of Wilder's index), 0 to 1
    "stochastic",  # place of the close between lowest low and highest high, 0 to 1
    "drawdown",  # close over the highest high, less 1
    "range",  # mean true range over the close
    "downside",  # falls' share of the squared returns, 0 to 1
)
OF_BAR = ("return", "bar_range")
ACROSS = ("relative_momentum", "relative_volatility")  # less the mean over assets that trade
_N = len(OF_HORIZON)


@dataclass(frozen=True)
class SnapshotRecipe:
    """Which indicators each asset gets.

    Parameters
    ----------
    horizons : sequence of int
        Bars of the asset, 2 or more each.
    max_age_s : int
        Time after an asset's last bar from which a snapshot has no value of it; by default four
        days, a long weekend.
    """

    horizons: Sequence[int] = HORIZONS
    max_age_s: int = 4 * 86_400

    def __post_init__(self) -> None:
        if not self.horizons or min(self.horizons) < 2:
            raise ConfigError(f"horizons are {list(self.horizons)}, expected numbers from 2 up")
        if self.max_age_s < 1:
            raise ConfigError(f"max_age_s is {self.max_age_s}, expected 1 or more")

    @property
    def names(self) -> list[str]:
        """Names of an asset's K indicators, in order."""
        own = [f"{name}_{h}" for h in self.horizons for name in OF_HORIZON]
        return [*OF_BAR, *own, *(f"{name}_{h}" for h in self.horizons for name in ACROSS)]


def snapshot_indicators(
    snapshots: Snapshots, recipe: SnapshotRecipe = SnapshotRecipe()
) -> NDArray[np.float32]:
    """Return every asset's indicators at every snapshot.

    Returns
    -------
    array, shape (T, A, K)
        NaN while an asset has fewer bars than a horizon, and where its last bar is too old.

    Notes
    -----
    Causal: a snapshot reads bars that ended at or before it. A value does not change when later
    bars come, to the last bit. Sums slide along with the window and are made anew every ``horizon``
    bars, so that rounding does not add up over decades.
    """
    n_T, n_assets = snapshots.last_TA.shape
    found_TAK = np.empty((n_T, n_assets, len(recipe.names)), np.float32)
    age_TA = snapshots.age_ns()
    is_fresh_TA = (age_TA >= 0) & (age_TA <= recipe.max_age_s * NS_PER_S)
    bar_TA = np.where(is_fresh_TA, snapshots.last_TA, NEVER)

    def fill(a: int) -> None:
        own_MK = asset_indicators(snapshots.bars[a], recipe)
        _take(own_MK, bar_TA[:, a], found_TAK[:, a])

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(fill, range(n_assets)))
    own = [OF_HORIZON.index(name.removeprefix("relative_")) for name in ACROSS]
    first_C = np.array([len(OF_BAR) + i * _N + j for i in range(len(recipe.horizons)) for j in own])
    _relate(found_TAK, first_C)
    return found_TAK


def asset_indicators(bars: Bars, recipe: SnapshotRecipe) -> NDArray[np.float32]:
    """Return the indicators of one asset's bars that need no other asset, shape (M, K)."""
    out_MK = np.full((len(bars), len(OF_BAR) + _N * len(recipe.horizons)), np.nan, np.float32)
    half = bars.spread / 2
    high, low, close = bars.high + half, bars.low + half, bars.close + half
    log = np.log(close)
    _of_bars(high, low, close, log, out_MK)
    for i, horizon in enumerate(recipe.horizons):
        first = len(OF_BAR) + i * _N
        _of_horizon(high, low, close, log, horizon, out_MK[:, first : first + _N])
    return out_MK


@njit(cache=True, nogil=True)
def _take(own, bar, out):  # type: ignore[no-untyped-def]
    n_own = own.shape[1]
    for t in range(len(bar)):
        for k in range(n_own):
            out[t, k] = own[bar[t], k] if bar[t] >= 0 else np.nan


@njit(cache=True, nogil=True)
def _relate(found, column):  # type: ignore[no-untyped-def]
    """Fill in what an asset is beside the others at the same snapshot, in the last columns."""
    n_assets, first = found.shape[1], found.shape[2] - len(column)
    for t in range(len(found)):
        for c in range(len(column)):
            total, n = 0.0, 0
            for a in range(n_assets):
                value = found[t, a, column[c]]
                if value == value:
                    total += value
                    n += 1
            mean = total / n if n else np.nan
            for a in range(n_assets):
                found[t, a, first + c] = found[t, a, column[c]] - mean


@njit(cache=True, nogil=True)
def _of_bars(high, low, close, log, out):  # type: ignore[no-untyped-def]
    for m in range(len(close)):
        if m > 0:
            out[m, 0] = log[m] - log[m - 1]
        out[m, 1] = (high[m] - low[m]) / close[m]


@njit(cache=True, nogil=True)
def _of_horizon(high, low, close, log, h, out):  # type: ignore[no-untyped-def]
    n = len(close)
    up, move, r1, r2, fall2, true, c1, c2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    top, bottom = np.empty(n, np.int64), np.empty(n, np.int64)  # queues of falling and rising bars
    top_first, top_last, bottom_first, bottom_last = 0, 0, 0, 0
    origin = 0.0
    for m in range(n):
        while top_last > top_first and high[top[top_last - 1]] <= high[m]:
            top_last -= 1
        top[top_last] = m
        top_last += 1
        while bottom_last > bottom_first and low[bottom[bottom_last - 1]] >= low[m]:
            bottom_last -= 1
        bottom[bottom_last] = m
        bottom_last += 1
        if m < h:
            continue
        if top[top_first] <= m - h:
            top_first += 1
        if bottom[bottom_first] <= m - h:
            bottom_first += 1
        first = m
        if m % h == 0:  # sums anew, of the h moves that end with this bar
            up, move, r1, r2, fall2, true, c1, c2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            origin, first = close[m], m - h + 1
        else:
            k = m - h
            step, r, c = close[k] - close[k - 1], log[k] - log[k - 1], close[k] - origin
            up -= max(step, 0.0)
            move -= abs(step)
            r1 -= r
            r2 -= r * r
            fall2 -= min(r, 0.0) * r
            true -= max(high[k], close[k - 1]) - min(low[k], close[k - 1])
            c1 -= c
            c2 -= c * c
        for k in range(first, m + 1):
            step, r, c = close[k] - close[k - 1], log[k] - log[k - 1], close[k] - origin
            up += max(step, 0.0)
            move += abs(step)
            r1 += r
            r2 += r * r
            fall2 += min(r, 0.0) * r
            true += max(high[k], close[k - 1]) - min(low[k], close[k - 1])
            c1 += c
            c2 += c * c
        highest, lowest, mean = high[top[top_first]], low[bottom[bottom_first]], origin + c1 / h
        spread = np.sqrt(max(c2 - c1 * c1 / h, 0.0) / (h - 1))
        is_wide = highest - lowest > 1e-9 * mean
        out[m, 0] = log[m] - log[m - h]
        out[m, 1] = np.sqrt(max(r2 - r1 * r1 / h, 0.0) / (h - 1))
        out[m, 2] = close[m] / mean - 1.0
        out[m, 3] = (close[m] - mean) / spread if spread > 1e-9 * mean else 0.0
        out[m, 4] = up / move if move > 1e-9 * mean else 0.5
        out[m, 5] = (close[m] - lowest) / (highest - lowest) if is_wide else 0.5
        out[m, 6] = close[m] / highest - 1.0
        out[m, 7] = true / h / close[m]
        out[m, 8] = fall2 / r2 if r2 > 1e-18 else 0.5
