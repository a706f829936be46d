"""Several assets on one clock: what each last traded at, at every hour at which any of them did.

Shape letters: T snapshots, A assets, M bars of one asset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.bars import Bars

NEVER = -1


@dataclass(frozen=True, slots=True)
class Factor:
    """What one share becomes at an event: a split's new shares, or a dividend put back in.

    Parameters
    ----------
    ts_event : int
        Bars that begin at or after it have prices after the event, UTC nanoseconds.
    ratio : float
        Shares held after it for each share held before: 4 after a split of four for one, slightly
        above 1 after a dividend that bought shares.
    """

    ts_event: int
    ratio: float

    def __post_init__(self) -> None:
        if not (self.ratio > 0 and np.isfinite(self.ratio)):
            raise DataError(
                f"the factor at {self.ts_event} is {self.ratio}, expected a finite number above 0"
            )


@dataclass(frozen=True)
class Snapshots:
    """Bars of several assets, and which of them was the last at each snapshot.

    Parameters
    ----------
    symbols : tuple of str
        Of the A assets.
    bars : tuple of Bars
        Of each asset, in units of the first share: prices times the shares that it has become.
    ts_T : array, shape (T,)
        Ends of bars of any asset, UTC nanoseconds, rising.
    last_TA : array, shape (T, A)
        Number of the asset's last bar that ended at or before the snapshot, or `NEVER`.
    """

    symbols: tuple[str, ...]
    bars: tuple[Bars, ...]
    ts_T: NDArray[np.int64]
    last_TA: NDArray[np.int64]

    def age_ns(self) -> NDArray[np.int64]:
        """Return the time since each asset's last bar ended, shape (T, A); -1 before its first."""
        age_TA = np.full(self.last_TA.shape, -1, np.int64)
        for a, bars in enumerate(self.bars):
            seen = self.last_TA[:, a] != NEVER
            age_TA[seen, a] = self.ts_T[seen] - bars.ts_close[self.last_TA[seen, a]]
        return age_TA

    def close(self) -> NDArray[np.float64]:
        """Return the last closes, shape (T, A); NaN before an asset's first bar."""
        return self._last([bars.close for bars in self.bars])

    def spread(self) -> NDArray[np.float64]:
        """Return the spreads of the last bars, shape (T, A), in units of the closes."""
        return self._last([bars.spread for bars in self.bars])

    def _last(self, values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        found_TA = np.full(self.last_TA.shape, np.nan)
        for a, value_M in enumerate(values):
            seen = self.last_TA[:, a] != NEVER
            found_TA[seen, a] = value_M[self.last_TA[seen, a]]
        return found_TA


def align(
    assets: Mapping[str, Bars], factors: Mapping[str, list[Factor]] | None = None
) -> Snapshots:
    """Put assets on one clock.

    Parameters
    ----------
    assets : mapping of str to Bars
        Raw bars of each asset, whatever its sessions; missing bars are missing, not filled.
    factors : mapping of str to list of Factor, optional
        Splits and dividends of each asset that has them.

    Raises
    ------
    DataError
        If there is no asset, or factors are of an asset that is not there.

    Notes
    -----
    Causal: a price is changed by factors at or before its time, never by later ones, and a snapshot
    sees bars that have ended.
    """
    if not assets:
        raise DataError("there is no asset to put on a clock; expected the bars of one or more")
    factors = factors or {}
    if unknown := sorted(factors.keys() - assets.keys()):
        raise DataError(f"factors of {', '.join(unknown)}; the bars are of {', '.join(assets)}")
    bars = tuple(_in_first_shares(b, factors.get(symbol, [])) for symbol, b in assets.items())
    ts_T = np.unique(np.concatenate([b.ts_close for b in bars]))
    last = [np.searchsorted(b.ts_close, ts_T, side="right") - 1 for b in bars]
    return Snapshots(tuple(assets), bars, ts_T, np.stack(last, axis=1))


def _in_first_shares(bars: Bars, factors: list[Factor]) -> Bars:
    shares_M = np.ones(len(bars))
    for factor in factors:
        shares_M[np.searchsorted(bars.ts_open, factor.ts_event) :] *= factor.ratio
    prices = (bars.open, bars.high, bars.low, bars.close, bars.spread)
    return Bars(bars.ts_open, bars.ts_close, *(price * shares_M for price in prices))
