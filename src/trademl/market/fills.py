"""The one fill model: where, when and at what price an order enters and leaves.

Labels, order bot and every backtest engine call the functions of this module and no other.

Rules
-----
* An order is decided on a quote. It reaches the market ``latency_ms`` later, and fills on the first
  executable quote from then on; without latency that may be the quote of its decision, never an
  older one.
* It enters at the touch (a buy pays the ask) and leaves at the opposite touch (a bought position
  sells at the bid).
* Market fills (entry, stop, time exit) are worse than the touch by ``slippage``.
* A stop is a market order that is sent on the first executable quote at or beyond it, and fills at
  the touch that it then finds: over a gap, or late, that is worse or better than the stop.
* A take profit is a resting limit: it fills at its own price, never better, without latency. With
  ``take_profit_is_market`` it is sent like a stop: late, at the touch, and it slips.
* The time limit runs by the clock from the entry's fill. Its market order is sent when the clock
  says so, between quotes too, and fills on the first executable quote at or after limit plus
  latency.
* Ties: exits are looked for on quotes after the entry quote, in file order. On the quote that
  reaches a barrier and on which the time exit would fill, the barrier counts.
* A price within one part in 10^12 of a barrier has reached it, so that decimal prices tie as they
  are printed and not as binary fractions round.
* A flagged quote neither fills nor triggers anything.

In flight
---------
* While an entry is in flight there is no position, and nothing triggers.
* While a time exit is in flight both barriers are still looked at, and the first that is reached
  names the exit: a resting take profit fills, a stop sends its own order.
* Once a barrier has sent a market order nothing else triggers, whatever prices do: the other
  barrier is withdrawn. The order fills when it arrives, or with the time exit where that arrives
  first. So no position outlives its limit and the latency by more than the wait for a quote.
* What has not filled when the recording ends is censored.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.costs import Costs
from trademl.market.orders import ExitReason, Orders, Transactions
from trademl.market.pyramid import Pyramid, build_pyramid, first_outside_each
from trademl.market.quotes import Quotes

CENSORED = int(ExitReason.CENSORED)
TAKE_PROFIT = int(ExitReason.TAKE_PROFIT)
STOP_LOSS = int(ExitReason.STOP_LOSS)
TIME = int(ExitReason.TIME)
TIE_TOLERANCE = 1e-12  # of the entry price
END_OF_TIME = 2**63 - 1
ROWS_AT_ONCE = 32_768


@njit(cache=True, nogil=True)
def entry_price(side: int, bid: float, ask: float, slippage: float) -> float:
    """Return the price of a market entry on an executable quote."""
    return ask + slippage if side > 0 else bid - slippage


@njit(cache=True, nogil=True)
def market_exit_price(side: int, bid: float, ask: float, slippage: float) -> float:
    """Return the price of a market exit of a position of ``side`` on an executable quote."""
    return bid - slippage if side > 0 else ask + slippage


@njit(cache=True, nogil=True)
def exit_touch(side: int, bid: float, ask: float) -> float:
    """Return the price at which a position of ``side`` could be left, before slippage."""
    return bid if side > 0 else ask


@njit(cache=True, nogil=True)
def barriers(side: int, entry: float, take_profit: float, stop_loss: float) -> tuple[float, float]:
    """Return the prices of the take profit and of the stop of a position."""
    return entry + side * take_profit, entry - side * stop_loss


@njit(cache=True, nogil=True)
def band(side: int, entry: float, take_profit: float, stop_loss: float) -> tuple[float, float]:
    """Return the exit touches, lower and upper, between which no barrier is reached."""
    limit_price, stop_price = barriers(side, entry, take_profit, stop_loss)
    slack = TIE_TOLERANCE * entry
    return min(limit_price, stop_price) + slack, max(limit_price, stop_price) - slack


@njit(cache=True, nogil=True)
def later(moment: int, by: int) -> int:
    """Return a time later by nanoseconds of 0 or more, or the end of time where that is earlier."""
    return moment + by if by <= END_OF_TIME - moment else END_OF_TIME


@njit(cache=True, nogil=True)
def is_limit_reached(side: int, touch: float, limit_price: float, slack: float) -> bool:
    """Say whether the exit touch of a position of ``side`` reaches its take profit."""
    return touch >= limit_price - slack if side > 0 else touch <= limit_price + slack


@njit(cache=True, nogil=True)
def is_stop_reached(side: int, touch: float, stop_price: float, slack: float) -> bool:
    """Say whether the exit touch of a position of ``side`` reaches its stop."""
    return touch <= stop_price + slack if side > 0 else touch >= stop_price - slack


@njit(cache=True, nogil=True)
def barrier_reached(
    side: int, touch: float, entry: float, take_profit: float, stop_loss: float
) -> int:
    """Return which barrier the exit touch of a position reaches: a reason, or CENSORED.

    Parameters
    ----------
    side : int
        +1 for a bought position, -1 for a sold one.
    entry : float
        Entry price; the barriers are ``take_profit`` and ``stop_loss`` away from it.
    """
    limit_price, stop_price = barriers(side, entry, take_profit, stop_loss)
    slack = TIE_TOLERANCE * entry
    if is_limit_reached(side, touch, limit_price, slack):
        return TAKE_PROFIT
    return STOP_LOSS if is_stop_reached(side, touch, stop_price, slack) else CENSORED


@njit(cache=True, nogil=True)
def next_executable(
    ts_event: NDArray[np.int64], flags: NDArray[np.uint8], start: int, moment: int
) -> int:
    """Return the first executable quote from ``start`` on that is not before ``moment``, or -1."""
    for k in range(start, len(flags)):
        if flags[k] == 0 and ts_event[k] >= moment:
            return k
    return -1


@njit(cache=True, nogil=True)
def settle_one(
    ts_event: NDArray[np.int64],
    bid: NDArray[np.float64],
    ask: NDArray[np.float64],
    flags: NDArray[np.uint8],
    decided_at: int,
    side: int,
    take_profit: float,
    stop_loss: float,
    time_limit_ns: int,
    slippage: float,
    latency_ns: int,
    take_profit_is_market: bool,
) -> tuple[int, float, int, float, int]:
    """Carry one order from entry to exit, quote by quote.

    Parameters
    ----------
    ts_event, bid, ask, flags : ndarray of shape (P,)
        The recording, as in `Quotes`.
    decided_at : int
        Index of the quote on which the order is decided.
    time_limit_ns : int
        Longest life of the position after its entry.
    slippage, latency_ns, take_profit_is_market
        As in `Costs`.

    Returns
    -------
    tuple
        (entry_index, entry_price, exit_index, exit_price, reason); -1 and NaN where the
        recording ended before.

    Notes
    -----
    Causal: reads quotes from the decision to the exit and none after.
    """
    first = next_executable(ts_event, flags, decided_at, later(ts_event[decided_at], latency_ns))
    if first < 0:
        return -1, np.nan, -1, np.nan, CENSORED
    entry = entry_price(side, bid[first], ask[first], slippage)
    arrives_at = later(later(ts_event[first], time_limit_ns), latency_ns)
    reason = CENSORED
    for k in range(first + 1, len(flags)):
        if flags[k] != 0:
            continue
        if reason == CENSORED:
            touch = exit_touch(side, bid[k], ask[k])
            reason = barrier_reached(side, touch, entry, take_profit, stop_loss)
            if reason == TAKE_PROFIT and not take_profit_is_market:
                return first, entry, k, barriers(side, entry, take_profit, stop_loss)[0], reason
            if reason != CENSORED:
                arrives_at = min(arrives_at, later(ts_event[k], latency_ns))
        if ts_event[k] >= arrives_at:
            price = market_exit_price(side, bid[k], ask[k], slippage)
            return first, entry, k, price, TIME if reason == CENSORED else reason
    return first, entry, -1, np.nan, CENSORED


def settle(quotes: Quotes, orders: Orders, costs: Costs) -> Transactions:
    """Carry every order from entry to exit, each on its own, and return the round trips.

    Parameters
    ----------
    quotes : Quotes
        The recording, P quotes.
    orders : Orders
        N orders; `Orders.quote_index` must lie within the recording.
    costs : Costs
        Fees of both sides, slippage and latency of market fills.

    Returns
    -------
    Transactions
        N round trips in the order of ``orders``. An order still open at the end of the
        recording is censored: kept, with NaN for its exit and its PnL.

    Raises
    ------
    DataError
        If an order is decided outside the recording, or has a barrier that is not positive.

    Notes
    -----
    Causal: the round trip reads quotes from its decision to its exit and none after.

    Each round trip is that of `settle_one`, found in O(log P) however far its barriers are, on
    every core.
    """
    check_orders(len(quotes), orders)
    market, done = _market(quotes, orders), _unsettled(len(orders))
    starts = range(0, len(orders), ROWS_AT_ONCE)

    def work(start: int) -> None:
        rows = slice(start, start + ROWS_AT_ONCE)
        _settle_rows(market, orders.take(rows), costs, done.take(rows))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(work, starts))
    return done


class _Market(NamedTuple):
    """The E executable of P quotes.

    ``index_E`` says which they are, ``rank_P`` how many come before each quote. ``leave_bought``
    and ``leave_sold`` are the pyramids of the touch at which each side leaves.
    """

    ts_P: NDArray[np.int64]
    ts_E: NDArray[np.int64]
    bid_E: NDArray[np.float64]
    ask_E: NDArray[np.float64]
    index_E: NDArray[np.int64]
    rank_P: NDArray[np.int64]
    leave_bought: Pyramid
    leave_sold: Pyramid


def _market(quotes: Quotes, orders: Orders) -> _Market:
    index_E = np.flatnonzero(quotes.is_executable)
    is_clean = len(index_E) == len(quotes)
    kept = slice(None) if is_clean else index_E  # a clean recording is not copied
    ts_E, bid_E, ask_E = quotes.ts_event[kept], quotes.bid[kept], quotes.ask[kept]
    rank_P = index_E if is_clean else np.cumsum(quotes.is_executable) - quotes.is_executable
    to_sell, to_buy = (
        touch if is_needed else touch[:0]
        for touch, is_needed in ((bid_E, (orders.side > 0).any()), (ask_E, (orders.side < 0).any()))
    )
    bought, sold = build_pyramid(to_sell, to_sell), build_pyramid(to_buy, to_buy)
    return _Market(quotes.ts_event, ts_E, bid_E, ask_E, index_E, rank_P, bought, sold)


def _unsettled(n: int) -> Transactions:
    entry_index, exit_index = np.empty(n, np.int64), np.empty(n, np.int64)
    entry, exit_price, fees, pnl = (np.empty(n) for _ in range(4))
    return Transactions(entry_index, entry, exit_index, exit_price, np.empty(n, np.int8), fees, pnl)


def _settle_rows(market: _Market, orders: Orders, costs: Costs, done: Transactions) -> None:
    """Settle some orders, and write their round trips into ``done``."""
    n, on_market = len(orders), (market.ts_E, market.bid_E, market.ask_E)
    side, distances = orders.side, (orders.take_profit, orders.stop_loss)
    lower_N, upper_N, touched_N = np.empty(n), np.empty(n), np.empty(n, np.int64)
    decided_ns_N, entered_N = market.ts_P[orders.quote_index], market.rank_P[orders.quote_index]
    entry_N, late = done.entry_price, (costs.slippage, costs.latency_ns)
    _enter(*on_market, decided_ns_N, side, *distances, *late, entered_N, entry_N, lower_N, upper_N)
    for pyramid, wanted_N in ((market.leave_bought, side > 0), (market.leave_sold, side < 0)):
        first_outside_each(pyramid, wanted_N, entered_N + 1, lower_N, upper_N, touched_N)
    _leave(
        *on_market,
        market.index_E,
        entered_N,
        touched_N,
        side,
        entry_N,
        *distances,
        orders.time_limit_ns,
        *late,
        costs.take_profit_is_market,
        done.entry_index,
        done.exit_index,
        done.exit_price,
        done.reason,
    )
    done.fees[:] = round_trip_fees(entry_N, done.exit_price, costs)
    done.pnl[:] = (done.exit_price - entry_N) * side - done.fees


@njit(cache=True, nogil=True)
def _enter(  # type: ignore[no-untyped-def]
    ts,
    bid,
    ask,
    decided_ns_N,
    side,
    take_profit,
    stop_loss,
    slippage,
    latency_ns,
    entered_N,
    entry_N,
    lower_N,
    upper_N,
):
    """Write each entry, and the band of exit touches in which neither barrier is reached.

    ``entered_N`` holds the first quote on which each order might enter, and then that on which it
    does.
    """
    for n in range(len(entered_N)):
        k = first_at_or_after(ts, entered_N[n], later(decided_ns_N[n], latency_ns))
        entered_N[n] = k
        if k == len(bid):
            entry_N[n], lower_N[n], upper_N[n] = np.nan, -np.inf, np.inf
            continue
        entry_N[n] = entry_price(side[n], bid[k], ask[k], slippage)
        lower_N[n], upper_N[n] = band(side[n], entry_N[n], take_profit[n], stop_loss[n])


@njit(cache=True, nogil=True)
def _leave(  # type: ignore[no-untyped-def]
    ts,
    bid,
    ask,
    index_E,
    entered_N,
    touched_N,
    side,
    entry_N,
    take_profit,
    stop_loss,
    time_limit_ns,
    slippage,
    latency_ns,
    take_profit_is_market,
    entry_index_N,
    exit_index_N,
    exit_price_N,
    reason_N,
):
    """Write each exit: by the barrier touched first, or by the time exit if that fills before."""
    end = len(ts)
    for n in range(len(entered_N)):
        entered, k = entered_N[n], touched_N[n]
        entry_index_N[n] = index_E[entered] if entered < end else -1
        exit_index_N[n], exit_price_N[n], reason_N[n] = -1, np.nan, CENSORED
        if entered == end:
            continue
        arrives_at = later(later(ts[entered], time_limit_ns[n]), latency_ns)
        if k > entered + 1 and ts[k - 1] >= arrives_at:  # the time exit filled on an earlier quote
            k = first_at_or_after(ts, entered + 1, arrives_at)
        if k == end:
            continue
        touch = exit_touch(side[n], bid[k], ask[k])
        reason = barrier_reached(side[n], touch, entry_N[n], take_profit[n], stop_loss[n])
        if reason == TAKE_PROFIT and not take_profit_is_market:
            price = barriers(side[n], entry_N[n], take_profit[n], stop_loss[n])[0]
        else:
            if reason != CENSORED:
                k = first_at_or_after(ts, k, min(arrives_at, later(ts[k], latency_ns)))
            if k == end:
                continue
            price = market_exit_price(side[n], bid[k], ask[k], slippage)
        exit_index_N[n], exit_price_N[n] = index_E[k], price
        reason_N[n] = TIME if reason == CENSORED else reason


@njit(cache=True, nogil=True)
def first_at_or_after(ts: NDArray[np.int64], start: int, moment: int) -> int:
    """Return the first index from ``start`` on whose time is ``moment`` or later, or ``len(ts)``.

    Strides double from ``start`` until they pass the moment: O(log) of the distance.
    """
    low, stride = start, 1
    while low + stride <= len(ts) and ts[low + stride - 1] < moment:
        low += stride
        stride *= 2
    high = min(low + stride - 1, len(ts))
    while low < high:
        middle = (low + high) // 2
        if ts[middle] < moment:
            low = middle + 1
        else:
            high = middle
    return low


def round_trip_fees(
    entry: NDArray[np.float64], exit_price: NDArray[np.float64], costs: Costs
) -> NDArray[np.float64]:
    """Return the fees of both sides, per unit, in quote currency."""
    return costs.fee_bps * 1e-4 * (entry + exit_price) + 2 * costs.fee_per_unit


def check_orders(n_recorded: int, orders: Orders, *, of: str = "quote") -> None:
    """Raise DataError if an order lies outside the recording or has no positive barrier."""
    outside = (orders.quote_index < 0) | (orders.quote_index >= n_recorded)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"order {row} is decided on {of} {orders.quote_index[row]}, outside the recording "
            f"of {n_recorded} {of}s"
        )
    for name in ("take_profit", "stop_loss"):
        bad = ~(getattr(orders, name) > 0)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"order {row} has {name} {getattr(orders, name)[row]}, expected more than 0"
            )
