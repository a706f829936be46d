"""Prices of several assets on one clock: each has one where its market gave it, and none elsewhere.

Shape letters: T rows, A assets, P quotes of an asset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.adjustments import adjust, payments
from trademl.market.carry import Carry
from trademl.market.costs import Costs
from trademl.market.events import Event
from trademl.market.quotes import NS_PER_S, Quotes

SIGMA_BARS = 20  # changes of price from which an asset's volatility is known


@dataclass(frozen=True, slots=True)
class Panel:
    """Executable prices, one row a time at which an asset has one.

    Parameters
    ----------
    ts_event : ndarray of int64, shape (T,)
        UTC nanoseconds, strictly increasing.
    bid, ask : ndarray of float64, shape (A, T)
        NaN where an asset has no price on which it could be traded. An asset a row of the array,
        so that compiled code reads along it.
    paid_bought, paid_sold : ndarray of float64, shape (A, T)
        What a unit held is paid since the row before, a bought and a sold one; negative where the
        holder pays.
    """

    ts_event: NDArray[np.int64]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]
    paid_bought: NDArray[np.float64]
    paid_sold: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = (self.n_assets, len(self.ts_event))
        for name in ("bid", "ask", "paid_bought", "paid_sold"):
            if (found := getattr(self, name).shape) != shape:
                raise DataError(f"{name} of a panel has shape {found}, expected {shape}")
        if len(self.ts_event) and not (np.diff(self.ts_event) > 0).all():
            row = int(np.flatnonzero(np.diff(self.ts_event) <= 0)[0]) + 1
            raise DataError(f"row {row} of a panel is not after the row above it")
        if ((self.bid > self.ask) | (self.bid <= 0)).any():
            asset, row = (int(i[0]) for i in np.nonzero((self.bid > self.ask) | (self.bid <= 0)))
            raise DataError(
                f"asset {asset} on row {row} has bid {self.bid[asset, row]} and ask "
                f"{self.ask[asset, row]}: expected 0 < bid <= ask, or NaN"
            )

    @property
    def n_assets(self) -> int:
        """How many assets, A."""
        return int(self.bid.shape[0])

    def touches(self, costs: Costs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return bid and ask at the spread of the costs."""
        if costs.spread_scale == 1:
            return self.bid, self.ask
        mid, half = (self.bid + self.ask) / 2, costs.spread_scale * (self.ask - self.bid) / 2
        return mid - half, mid + half

    def book(self, costs: Costs) -> NDArray[np.float64]:
        """Return what `slippage_on` reads of each asset, shape (A, 3, T); empty if nothing."""
        if not costs.needs_volatility:
            return np.empty((self.n_assets, 3, 0))
        book = np.full((self.n_assets, 3, len(self.ts_event)), np.inf)
        for asset in range(self.n_assets):
            book[asset, 2] = self._volatility(asset)
        return book

    def _volatility(self, asset: int) -> NDArray[np.float64]:
        """Return the volatility of one second as known on each row, from the last bars before it.

        0 until there are as many changes as are asked for.
        """
        mid = (self.bid[asset] + self.ask[asset]) / 2
        at = np.flatnonzero(np.isfinite(mid))
        sigma = np.zeros(len(self.ts_event))
        if len(at) <= SIGMA_BARS:
            return sigma
        squares = np.concatenate(([0.0], np.cumsum(np.diff(mid[at]) ** 2)))
        seconds = (self.ts_event[at] - self.ts_event[at[0]]) / NS_PER_S
        sums = squares[SIGMA_BARS:] - squares[:-SIGMA_BARS]
        known = np.sqrt(np.maximum(sums, 0) / (seconds[SIGMA_BARS:] - seconds[:-SIGMA_BARS]))
        last = np.searchsorted(at, np.arange(len(sigma)), side="left") - 1  # strictly before
        is_known = last >= SIGMA_BARS
        sigma[is_known] = known[last[is_known] - SIGMA_BARS]
        return sigma


def panel_of(
    quotes: Sequence[Quotes],
    costs: Costs,
    *,
    events: Sequence[Sequence[Event]] | None = None,
) -> Panel:
    """Put recordings of several assets on one clock, without the jumps that no holder earns.

    Parameters
    ----------
    quotes : sequence of Quotes
        One recording an asset, all in one currency; of equal times the last quote counts.
    costs : Costs
        What rolls and nights cost.
    events : sequence of sequence of Event, optional
        Splits, dividends and rolls of each asset.

    Raises
    ------
    DataError
        If there is no executable quote at all, or events are of another number of assets.

    Notes
    -----
    Causal: a price is changed by events at or before its time, never by later ones.
    """
    given = [list(of) for of in events] if events is not None else [[] for _ in quotes]
    if len(given) != len(quotes):
        raise DataError(f"events of {len(given)} assets for quotes of {len(quotes)}")
    adjusted = [adjust(q, of) for q, of in zip(quotes, given, strict=True)]
    usable = [q.is_executable for q in adjusted]
    times = [q.ts_event[ok] for q, ok in zip(adjusted, usable, strict=True)]
    if not times or not any(map(len, times)):
        raise DataError("no asset has an executable quote")
    ts_event = np.unique(np.concatenate(times))
    shape = (len(quotes), len(ts_event))
    bid, ask = np.full(shape, np.nan), np.full(shape, np.nan)
    bought, sold = np.zeros(shape), np.zeros(shape)
    for a, (q, ok) in enumerate(zip(adjusted, usable, strict=True)):
        at = np.searchsorted(ts_event, q.ts_event[ok])
        bid[a, at], ask[a, at] = q.bid[ok], q.ask[ok]
        held = payments(q, costs)
        bought[a], sold[a] = _paid(ts_event, held, held.bought), _paid(ts_event, held, held.sold)
    return Panel(ts_event, bid, ask, bought, sold)


def _paid(
    ts_event: NDArray[np.int64], carry: Carry, sums: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what was paid after the row before and up to each row."""
    until = sums[np.searchsorted(carry.ts, ts_event, side="right")]
    return np.diff(until, prepend=until[0])
