"""The fill model on OHLC bars, where the path within a bar is not known.

Prices of a bar are those of the bid; the ask is ``spread`` above it all through the bar. The rules
are those of `trademl.market.fills`; this is what bars add to them:

* An order is decided when its bar closes. It enters at the open of the first bar that opens at or
  after the decision and the latency, and its exits are looked for from that open on.
* The open is looked at first. Over a gap a stop fills there, a take profit at its own price, and a
  time exit that has arrived at the touch there; where a barrier is reached too, the barrier counts.
* Within a bar a stop fills at its own price, as prices are taken to pass through it; a take profit
  fills at its own price. Both slip if they are market orders.
* A bar that holds both barriers counts as the stop. Such bars are counted.
* A time exit that arrives within a bar fills at its close. A barrier within that bar counts first.
* When within a bar a barrier was reached is not known: with latency its market order counts as sent
  at the bar's close, and fills at the first open or close from its arrival on.

Shape letters: P bars, N orders.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import ConfigError, DataError
from trademl.market.compiling import fill_kernel
from trademl.market.costs import Costs
from trademl.market.fills import (
    CENSORED,
    STOP_LOSS,
    TAKE_PROFIT,
    TIME,
    band,
    barrier_reached,
    barriers,
    check_orders,
    entry_price,
    first_at_or_after,
    later,
    market_exit_price,
    round_trip_fees,
)
from trademl.market.friction import friction_of
from trademl.market.orders import Orders, Transactions
from trademl.market.pyramid import build_pyramid, first_outside


@dataclass(frozen=True, slots=True)
class Bars:
    """OHLC bars of one instrument, every array of shape (P,), in order of time.

    Parameters
    ----------
    ts_open, ts_close : ndarray of int64
        When each bar begins and ends, UTC nanoseconds; no bar begins before the last one ended.
    open, high, low, close : ndarray of float64
        Bid prices, in quote currency. Bars of the mid: take half the spread off each first.
    spread : ndarray of float64
        Ask minus bid, 0 or more.
    """

    ts_open: NDArray[np.int64]
    ts_close: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    spread: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ts_open)

    def slice(self, start: int, stop: int) -> Bars:
        """Return bars ``start`` to ``stop`` (exclusive) as views."""
        return Bars(*(getattr(self, field.name)[start:stop] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class BarTransactions:
    """Round trips on bars, and which of them the bars leave in doubt.

    Parameters
    ----------
    transactions : Transactions
        N round trips; their indices are those of bars.
    is_ambiguous : ndarray of bool, shape (N,)
        Whether the bar that reached a barrier held both, so that the stop was assumed.
    """

    transactions: Transactions
    is_ambiguous: NDArray[np.bool_]

    @property
    def n_ambiguous(self) -> int:
        """Number of round trips whose barrier bar held both barriers."""
        return int(self.is_ambiguous.sum())

    @property
    def ambiguous_share(self) -> float:
        """Share of such round trips among those that ended; NaN where none did."""
        n_ended = int((self.transactions.reason != CENSORED).sum())
        ended = self.is_ambiguous & (self.transactions.reason != CENSORED)
        return int(ended.sum()) / n_ended if n_ended else float("nan")


def settle_on_bars(bars: Bars, orders: Orders, costs: Costs) -> BarTransactions:
    """Carry every order from entry to exit on bars, each on its own.

    Parameters
    ----------
    bars : Bars
        The recording, P bars.
    orders : Orders
        N orders; `Orders.quote_index` is the bar on whose close each is decided.
    costs : Costs
        Fees of both sides, slippage and latency of market fills.

    Raises
    ------
    ConfigError
        If the costs need quotes: volatility, impact, financing, another spread.
    DataError
        If a bar contradicts itself or the one before, or an order lies outside the recording or
        has a barrier that is not positive.

    Notes
    -----
    Causal: a round trip reads bars from its decision to its exit and none after.
    """
    _refuse_costs_of_quotes(costs)
    check_bars(bars)
    check_orders(len(bars), orders, of="bar")
    # Columns of a file are read-only, which is another type to the compiler; both sides need one.
    bars = Bars(*(np.require(getattr(bars, f.name), requirements=["C", "W"]) for f in fields(bars)))
    n = len(orders)
    index_N2, price_N2 = np.empty((n, 2), np.int64), np.empty((n, 2))
    reason_N, is_ambiguous_N = np.empty(n, np.int8), np.empty(n, np.bool_)
    _settle_all(
        tuple(getattr(bars, field.name) for field in fields(bars)),
        build_pyramid(bars.low, bars.high),
        build_pyramid(bars.low + bars.spread, bars.high + bars.spread),
        tuple(getattr(orders, field.name) for field in fields(orders)),
        friction_of(costs),
        index_N2,
        price_N2,
        reason_N,
        is_ambiguous_N,
    )
    entry_N, exit_N = np.ascontiguousarray(price_N2.T)
    fees = round_trip_fees(entry_N, exit_N, costs)
    pnl = (exit_N - entry_N) * orders.side * costs.multiplier - fees
    entered_N, left_N = np.ascontiguousarray(index_N2.T)
    done = Transactions(entered_N, entry_N, left_N, exit_N, reason_N, fees, pnl)
    return BarTransactions(done, is_ambiguous_N)


def _refuse_costs_of_quotes(costs: Costs) -> None:
    financed = costs.financing_long_pct or costs.financing_short_pct
    if costs.needs_volatility or financed or costs.spread_scale != 1:
        raise ConfigError(
            "slippage by volatility or impact, financing and another spread are of quotes: settle "
            "on quotes, or set them to their defaults for bars"
        )


def check_bars(bars: Bars) -> None:
    """Raise DataError at the first bar that contradicts itself or the one before."""
    inside = [(bars.low <= x) & (x <= bars.high) for x in (bars.open, bars.close)]
    for is_good, expected in (
        (inside[0] & inside[1], "open and close between low and high"),
        (bars.spread >= 0, "a spread of 0 or more"),
        (bars.ts_open <= bars.ts_close, "an end at or after its beginning"),
        (
            np.append(True, bars.ts_open[1:] >= bars.ts_close[:-1]),
            "no beginning before the last end",
        ),
    ):
        if not is_good[: len(bars)].all():
            row = int(np.flatnonzero(~is_good)[0])
            shown = ", ".join(f"{f.name} {getattr(bars, f.name)[row]}" for f in fields(bars))
            raise DataError(f"bar {row} has {shown}; expected {expected}")


@fill_kernel
def _settle_all(  # type: ignore[no-untyped-def]
    bars, leave_bought, leave_sold, orders, costs, index_N2, price_N2, reason_N, is_ambiguous_N
):
    ts_open, ts_close, open_, _, _, _, spread = bars
    decided_at, side, take_profit, stop_loss, time_limit_ns = orders
    end = len(ts_open)
    for n in range(len(side)):
        index_N2[n], price_N2[n] = -1, np.nan
        reason_N[n], is_ambiguous_N[n] = CENSORED, False
        sent_at = later(ts_close[decided_at[n]], costs.seen_ns)
        first = first_at_or_after(ts_open, decided_at[n] + 1, sent_at)
        if first == end:
            continue
        index_N2[n, 0] = first
        slippage = _slippage(costs, spread[first])
        entry = entry_price(side[n], open_[first], open_[first] + spread[first], slippage)
        price_N2[n, 0] = entry
        position = (side[n], entry, take_profit[n], stop_loss[n])
        lower, upper = band(*position)
        touched = first_outside(leave_bought if side[n] > 0 else leave_sold, first, lower, upper)
        arrives_at = later(later(ts_open[first], time_limit_ns[n]), costs.latency_ns)
        exit_, is_ambiguous_N[n] = _leave(bars, position, first, touched, arrives_at, costs)
        index_N2[n, 1], price_N2[n, 1], reason_N[n] = exit_


@njit(nogil=True)
def _leave(bars, position, first, touched, arrives_at, costs):  # type: ignore[no-untyped-def]
    """Return (bar, price, reason) of an exit, and whether its bar held both barriers.

    A point is an open (twice its bar's index) or a close (one more); what happens within a bar
    happens before its close.
    """
    ts_open, ts_close = bars[0], bars[1]
    side = position[0]
    time_exit = _first_point(bars, 2 * first + 1, arrives_at)
    point, reason, is_ambiguous = _barrier(bars, position, first, touched)
    if point > time_exit or touched == len(ts_open):
        return _fill(bars, side, time_exit, TIME, costs), False
    limit_price, stop_price = barriers(*position)
    if reason == TAKE_PROFIT and not costs.take_profit_is_market:
        return (touched, limit_price, reason), is_ambiguous
    if point % 2 and costs.seen_ns == 0:
        price = stop_price if reason == STOP_LOSS else limit_price
        return (touched, price - side * _slippage(costs, bars[6][touched]), reason), is_ambiguous
    seen_at = ts_close[touched] if point % 2 else ts_open[touched]
    filled = _first_point(bars, point, min(arrives_at, later(seen_at, costs.seen_ns)))
    return _fill(bars, side, filled, reason, costs), is_ambiguous


@njit(nogil=True)
def _barrier(bars, position, first, touched):  # type: ignore[no-untyped-def]
    """Return at which point which barrier counts on the bar that touches one, and if both do."""
    _, _, open_, high, low, _, spread = bars
    side, entry, take_profit, stop_loss = position
    if touched == len(open_):
        return 2 * touched, CENSORED, False
    above_bid = 0.0 if side > 0 else spread[touched]
    if touched > first:
        reason = barrier_reached(side, open_[touched] + above_bid, entry, take_profit, stop_loss)
        if reason != CENSORED:
            return 2 * touched, reason, False
    best, worst = (high, low) if side > 0 else (low, high)
    at_worst = barrier_reached(side, worst[touched] + above_bid, entry, take_profit, stop_loss)
    at_best = barrier_reached(side, best[touched] + above_bid, entry, take_profit, stop_loss)
    if at_worst == STOP_LOSS:
        return 2 * touched + 1, STOP_LOSS, at_best == TAKE_PROFIT
    return 2 * touched + 1, TAKE_PROFIT, False


@njit(nogil=True)
def _first_point(bars, point, moment):  # type: ignore[no-untyped-def]
    """Return the first open or close from ``point`` on that is not before ``moment``."""
    ts_open, ts_close = bars[0], bars[1]
    k = first_at_or_after(ts_close, point // 2, moment)
    is_at_open = k < len(ts_open) and 2 * k >= point and ts_open[k] >= moment
    return 2 * k if is_at_open else 2 * k + 1


@njit(nogil=True)
def _slippage(costs, spread):  # type: ignore[no-untyped-def]
    return costs.slippage + costs.slippage_spreads * spread


@njit(nogil=True)
def _fill(bars, side, point, reason, costs):  # type: ignore[no-untyped-def]
    """Return (bar, price, reason) of a market exit at an open or a close."""
    _, _, open_, _, _, close, spread = bars
    k = point // 2
    if k == len(open_):
        return -1, np.nan, CENSORED
    bid = close[k] if point % 2 else open_[k]
    return k, market_exit_price(side, bid, bid + spread[k], _slippage(costs, spread[k])), reason
