"""A recording and its costs as the compiled fill model reads them: plain arrays and numbers.

Shape letter: P quotes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.market.costs import Costs
from trademl.market.quotes import NS_PER_S, Quotes

SECONDS_PER_DAY = 86_400
MINUTES_BACK = 5
NS_PER_MINUTE = 60 * NS_PER_S
BID_SIZE, ASK_SIZE, VOLATILITY = range(3)  # rows of a tape's book


class Tape(NamedTuple):
    """The columns of a recording that decide fills, each of shape (P,).

    Kernels take them one by one: an array within a tuple costs them more than a price does.

    Parameters
    ----------
    book : ndarray of float64, shape (3, P) or (3, 0)
        Units shown at the bid and at the ask, and the volatility of one second; empty where
        neither sizes nor volatility count.
    """

    ts: NDArray[np.int64]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]
    flags: NDArray[np.uint8]
    book: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> Tape:
        """Return the chosen quotes."""
        book = np.ascontiguousarray(self.book[:, rows]) if self.book.size else self.book
        return Tape(self.ts[rows], self.bid[rows], self.ask[rows], self.flags[rows], book)


class Friction(NamedTuple):
    """`Costs` as numbers; ``impact`` is per square root of a unit, fees are per unit and side."""

    slippage: float
    slippage_spreads: float
    slippage_volatility: float
    impact: float
    latency_ns: int
    seen_ns: int
    take_profit_is_market: bool
    fee_rate: float
    fee_per_unit: float
    multiplier: float


def friction_of(costs: Costs) -> Friction:
    """Return the costs as numbers."""
    per_second = costs.daily_volume_units / SECONDS_PER_DAY  # sigma sqrt(Q / V) over one second
    return Friction(
        float(costs.slippage),
        float(costs.slippage_spreads),
        float(costs.slippage_volatility),
        costs.impact / float(np.sqrt(per_second)) if costs.impact else 0.0,
        costs.latency_ns,
        costs.seen_ns,
        bool(costs.take_profit_is_market),
        costs.fee_bps * 1e-4 * costs.multiplier,
        float(costs.fee_per_unit),
        float(costs.multiplier),
    )


def tape_of(quotes: Quotes, costs: Costs) -> Tape:
    """Return what fills read of a recording: views, where the costs change no price."""
    bid, ask = _touches(quotes, costs)
    return Tape(quotes.ts_event, bid, ask, quotes.flags, _book(quotes, costs))


def _book(quotes: Quotes, costs: Costs) -> NDArray[np.float64]:
    has_size = costs.partial_fills and quotes.bid_size is not None
    if not has_size and not costs.needs_volatility:
        return np.empty((3, 0))
    book = np.full((3, len(quotes)), np.inf)
    if has_size and quotes.bid_size is not None and quotes.ask_size is not None:
        book[0], book[1] = quotes.bid_size, quotes.ask_size
    book[2] = 0.0
    if costs.needs_volatility:
        book[2] = quotes.volatility if quotes.volatility is not None else volatility(quotes)
    return book


def _touches(quotes: Quotes, costs: Costs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if costs.spread_scale == 1:
        return quotes.bid, quotes.ask
    mid, half = quotes.mid, costs.spread_scale * quotes.spread / 2
    return mid - half, mid + half


@njit(cache=True, nogil=True, inline="always")
def slippage_on(bid, ask, book, friction, k, size):  # type: ignore[no-untyped-def]
    """Return by how much a market order of ``size`` units is worse than the touch of quote k."""
    worse = friction.slippage + friction.slippage_spreads * (ask[k] - bid[k])
    if book.shape[1] > 0:
        multiple = friction.slippage_volatility + friction.impact * np.sqrt(size)
        worse += multiple * book[VOLATILITY, k]
    return worse


def as_traded(quotes: Quotes, costs: Costs) -> tuple[Quotes, Costs]:
    """Return the quotes that the costs make, with volatility, and what is left of the costs."""
    quotes = with_volatility(quotes, costs)
    bid, ask = _touches(quotes, costs)
    return replace(quotes, bid=bid, ask=ask), replace(costs, spread_scale=1.0)


def with_volatility(quotes: Quotes, costs: Costs) -> Quotes:
    """Return the recording with its volatility where costs read it, so that slices keep it."""
    if not costs.needs_volatility or quotes.volatility is not None:
        return quotes
    return replace(quotes, volatility=volatility(quotes))


def volatility(quotes: Quotes) -> NDArray[np.float64]:
    """Return the volatility of one second, in price units, as known on each quote.

    Returns
    -------
    ndarray of float64, shape (P,)
        Root of the sum of squared mid changes from quote to quote over the last five whole
        minutes of the clock, per second. 0 before the first minute is over.

    Notes
    -----
    Causal: reads quotes up to the end of the minute before. It does not depend on where a
    recording begins once six minutes are there: a batch and its source agree to the last bit.
    """
    return _volatility(quotes.ts_event, quotes.bid, quotes.ask, quotes.flags)  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _volatility(ts, bid, ask, flags):  # type: ignore[no-untyped-def]
    sigma = np.zeros(len(ts))
    squares = np.zeros(MINUTES_BACK)  # of each of the last whole minutes, by minute modulo five
    minute, minute_end, n_whole = 0, np.int64(0), 0
    current, value, before = 0.0, 0.0, np.nan
    for k in range(len(ts)):
        if ts[k] >= minute_end:
            now = ts[k] // NS_PER_MINUTE
            if minute_end != 0:
                for passed in range(minute, min(now, minute + MINUTES_BACK + 1)):
                    squares[passed % MINUTES_BACK] = current
                    current = 0.0
                n_whole = min(n_whole + now - minute, MINUTES_BACK)
                value = np.sqrt(_sum_of_minutes(squares, now, n_whole) / (60 * n_whole))
            current, minute, minute_end = 0.0, now, (now + 1) * NS_PER_MINUTE
        if flags[k] == 0:
            mid = (bid[k] + ask[k]) / 2
            if before == before:
                current += (mid - before) ** 2
            before = mid
        sigma[k] = value
    return sigma


@njit(cache=True, nogil=True)
def _sum_of_minutes(squares, now, n_whole):  # type: ignore[no-untyped-def]
    total = 0.0
    for back in range(1, n_whole + 1):
        total += squares[(now - back) % MINUTES_BACK]
    return total
