"""The one fill model: where, when and at what price an order enters and leaves.

Labels, order bot and every backtest engine call the functions of this module and no other.

Rules
-----
* An order is decided on a quote. It reaches the market ``latency_ms`` later, and fills on the first
  executable quote from then on; without latency that may be the quote of its decision, never an
  older one.
* It enters at the touch (a buy pays the ask) and leaves at the opposite touch (a bought position
  sells at the bid).
* Market fills (entry, stop, time exit) are worse than the touch by the slippage of `Costs`.
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
* Where the recording shows sizes, a quote fills no more than it shows, and nothing where it shows
  none. Of an entry the rest is cancelled. Of an exit the rest goes on as a market order, also
  where a take profit was reached; the exit counts when all of it has left, at its mean price.
* What is decided on a quote is late by ``quote_delay_ms`` too; what the clock decides is not.

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
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.adjustments import payments
from trademl.market.carry import carried_each
from trademl.market.compiling import fill_kernel
from trademl.market.costs import Costs
from trademl.market.friction import ASK_SIZE, BID_SIZE, Tape, friction_of, slippage_on, tape_of
from trademl.market.orders import ExitReason, Orders, Transactions
from trademl.market.pyramid import Pyramid, build_pyramid, first_outside_each
from trademl.market.quotes import Quotes

CENSORED = int(ExitReason.CENSORED)
TAKE_PROFIT = int(ExitReason.TAKE_PROFIT)
STOP_LOSS = int(ExitReason.STOP_LOSS)
TIME = int(ExitReason.TIME)
TIE_TOLERANCE = 1e-12  # of the entry price
END_OF_TIME = 2**63 - 1
ROUNDING = 1e-12  # of an order: what parts leave of it by rounding is no rest
ROWS_AT_ONCE = 32_768
BLOCK, FEW = 64, 8  # quotes looked at together


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


@njit(cache=True, nogil=True, inline="always")
def shown(book, side, k):  # type: ignore[no-untyped-def]
    """Return the units that an order of ``side`` finds on quote k: all it wants if not known."""
    if book.shape[1] == 0:
        return np.inf
    return book[ASK_SIZE, k] if side > 0 else book[BID_SIZE, k]


@njit(cache=True, nogil=True, inline="always")
def next_fill(ts, flags, book, start, moment, side):  # type: ignore[no-untyped-def]
    """Return the first quote from ``start`` on, not before ``moment``, that fills an order, or -1.

    ``side`` is that of the order: +1 buys.
    """
    for k in range(start, len(flags)):
        if flags[k] == 0 and ts[k] >= moment and shown(book, side, k) > 0:
            return k
    return -1


@njit(cache=True, nogil=True, inline="always")
def fill_entry(bid, ask, book, friction, k, side, size):  # type: ignore[no-untyped-def]
    """Return the units that a market entry finds on an executable quote, and their price."""
    filled = min(size, shown(book, side, k))
    return filled, entry_price(
        side, bid[k], ask[k], slippage_on(bid, ask, book, friction, k, filled)
    )


@njit(cache=True, nogil=True, inline="always")
def leave_at_market(ts, bid, ask, flags, book, friction, side, start, moment, size):  # type: ignore[no-untyped-def]
    """Return where a market exit is filled for good, and its mean price; (-1, NaN) if never.

    Each executable quote from ``start`` on that is not before ``moment`` fills what it shows.
    """
    rest, paid = size, 0.0
    for k in range(start, len(flags)):
        if flags[k] != 0 or ts[k] < moment:
            continue
        part = min(rest, shown(book, -side, k))
        if not part > 0:
            continue
        worse = slippage_on(bid, ask, book, friction, k, part)
        price = market_exit_price(side, bid[k], ask[k], worse)
        if part == size:
            return k, price
        rest, paid = rest - part, paid + part * price
        if not rest > ROUNDING * size:
            return k, paid / size
    return -1, np.nan


@njit(cache=True, nogil=True, inline="always")
def leave_at_barrier(  # type: ignore[no-untyped-def]
    ts,
    bid,
    ask,
    flags,
    book,
    friction,
    side,
    k,
    reason,
    limit_price,
    clock_ns,
    size,
):
    """Return where a position leaves whose barrier is reached on quote k, and its mean price.

    ``clock_ns`` is when the time exit arrives.
    """
    arrives_at = min(clock_ns, later(ts[k], friction.seen_ns))
    if reason != TAKE_PROFIT or friction.take_profit_is_market:
        return leave_at_market(ts, bid, ask, flags, book, friction, side, k, arrives_at, size)
    part = min(size, shown(book, -side, k))
    if part == size:
        return k, limit_price
    last, price = leave_at_market(
        ts, bid, ask, flags, book, friction, side, k + 1, arrives_at, size - part
    )
    return last, (part * limit_price + (size - part) * price) / size


@njit(cache=True, nogil=True, inline="always")
def settle_one(  # type: ignore[no-untyped-def]
    ts,
    bid,
    ask,
    flags,
    book,
    friction,
    decided_at,
    side,
    take_profit,
    stop_loss,
    time_limit_ns,
    size,
):
    """Carry one order from entry to exit, quote by quote.

    Parameters
    ----------
    ts, bid, ask, flags, book, friction
        The recording as a `Tape`, and its costs as `Friction`.
    decided_at : int
        Index of the quote on which the order is decided.
    time_limit_ns : int
        Longest life of the position after its entry.
    size : float
        Units wanted.

    Returns
    -------
    tuple
        (entry_index, entry_price, exit_index, exit_price, reason, units); -1 and NaN where the
        recording ended before.

    Notes
    -----
    Causal: reads quotes from the decision to the exit and none after.
    """
    decided_ns = later(ts[decided_at], friction.seen_ns)
    first = next_fill(ts, flags, book, decided_at, decided_ns, side)
    if first < 0:
        return -1, np.nan, -1, np.nan, CENSORED, 0.0
    units, entry = fill_entry(bid, ask, book, friction, first, side, size)
    clock_ns = later(later(ts[first], time_limit_ns), friction.latency_ns)
    last, price, reason = leave_from(
        ts,
        bid,
        ask,
        flags,
        book,
        friction,
        first,
        side,
        entry,
        take_profit,
        stop_loss,
        clock_ns,
        first,
        units,
    )
    return first, entry, last, price, reason, units


@njit(cache=True, nogil=True, inline="always")
def _n_outside(touch, k, n, lower, upper):  # type: ignore[no-untyped-def]
    """Count prices outside a band among ``n`` from ``k`` on: so it compiles to vector compares."""
    found = np.int64(0)
    for j in range(n):
        price = touch[np.uint64(k + j)]
        found += np.int64(price <= lower) + np.int64(price >= upper)
    return found


@njit(cache=True, nogil=True, inline="always")
def _first_executable_outside(touch, flags, start, stop, lower, upper):  # type: ignore[no-untyped-def]
    """Return the first executable quote outside a band, or ``stop``; looks at a few at a time."""
    k = start
    while k + FEW <= stop:
        if _n_outside(touch, k, FEW, lower, upper) > 0:
            for j in range(k, k + FEW):
                if (touch[j] <= lower or touch[j] >= upper) and flags[j] == 0:
                    return j
        k += FEW
    for j in range(k, stop):
        if (touch[j] <= lower or touch[j] >= upper) and flags[j] == 0:
            return j
    return stop


@njit(cache=True, nogil=True, inline="always")
def _touched_before(ts, touch, flags, start, lower, upper, clock_ns, clock_from):  # type: ignore[no-untyped-def]
    """Return a quote outside the band that comes before the clock, and where to look on from.

    The first is -1 where there is none in whole blocks before the block of the clock. So the
    clock is looked for only where a position lives that long.
    """
    k, end = start, len(flags)
    while k + BLOCK <= end and (ts[k + BLOCK - 1] < clock_ns or k + BLOCK <= clock_from):
        if _n_outside(touch, k, BLOCK, lower, upper) > 0:
            j = _first_executable_outside(touch, flags, k, k + BLOCK, lower, upper)
            if j < k + BLOCK:
                return j, j
        k += BLOCK
    return -1, k


@njit(cache=True, nogil=True, inline="always")
def leave_from(  # type: ignore[no-untyped-def]
    ts,
    bid,
    ask,
    flags,
    book,
    friction,
    entered,
    side,
    entry,
    take_profit,
    stop_loss,
    clock_ns,
    clock_from,
    units,
):
    """Return (exit_index, exit_price, reason) of a position that was entered on a quote.

    ``clock_ns`` is when its time exit arrives; it fills on quote ``clock_from`` or later.
    """
    lower, upper = band(side, entry, take_profit, stop_loss)
    touch, end = bid if side > 0 else ask, len(flags)
    k, start = _touched_before(ts, touch, flags, entered + 1, lower, upper, clock_ns, clock_from)
    due = end
    if k < 0:
        due = first_at_or_after(ts, max(start, clock_from), clock_ns)
        while due < end and flags[due] != 0:
            due += 1
        k = _first_executable_outside(touch, flags, start, min(due + 1, end), lower, upper)
    reason = CENSORED
    if k <= due and k < end:
        reason = barrier_reached(side, touch[k], entry, take_profit, stop_loss)
    k = min(k, due)
    if k == end:
        return -1, np.nan, CENSORED
    if reason == CENSORED:
        last, price = leave_at_market(ts, bid, ask, flags, book, friction, side, k, clock_ns, units)
        reason = TIME
    else:
        limit_price = barriers(side, entry, take_profit, stop_loss)[0]
        last, price = leave_at_barrier(
            ts, bid, ask, flags, book, friction, side, k, reason, limit_price, clock_ns, units
        )
    return last, price, reason if last >= 0 else CENSORED


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
    market, done = _market(quotes, orders, costs), _unsettled(len(orders))
    starts = range(0, len(orders), ROWS_AT_ONCE)

    def work(start: int) -> None:
        rows = slice(start, start + ROWS_AT_ONCE)
        _settle_rows(market, orders.take(rows), costs, done.take(rows))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(work, starts))
    return _with_carry(quotes, orders, done, costs)


class _Market(NamedTuple):
    """The E executable of P quotes.

    ``index_E`` says which they are, ``rank_P`` how many come before each quote. ``leave_bought``
    and ``leave_sold`` are the pyramids of the touch at which each side leaves.
    """

    ts_P: NDArray[np.int64]
    tape_E: Tape
    index_E: NDArray[np.int64]
    rank_P: NDArray[np.int64]
    leave_bought: Pyramid
    leave_sold: Pyramid


def _market(quotes: Quotes, orders: Orders, costs: Costs) -> _Market:
    tape = tape_of(quotes, costs)
    index_E = np.flatnonzero(tape.flags == 0)
    is_clean = len(index_E) == len(quotes)
    if not is_clean:  # a clean recording is not copied
        tape = tape.take(index_E)
    rank_P = index_E if is_clean else np.cumsum(quotes.is_executable) - quotes.is_executable
    to_sell, to_buy = (
        touch if is_needed else touch[:0]
        for touch, is_needed in (
            (tape.bid, (orders.side > 0).any()),
            (tape.ask, (orders.side < 0).any()),
        )
    )
    bought, sold = build_pyramid(to_sell, to_sell), build_pyramid(to_buy, to_buy)
    return _Market(quotes.ts_event, tape, index_E, rank_P, bought, sold)


def _unsettled(n: int) -> Transactions:
    entry_index, exit_index = np.empty(n, np.int64), np.empty(n, np.int64)
    entry, exit_price, fees, pnl = (np.empty(n) for _ in range(4))
    return Transactions(entry_index, entry, exit_index, exit_price, np.empty(n, np.int8), fees, pnl)


def _settle_rows(market: _Market, orders: Orders, costs: Costs, done: Transactions) -> None:
    """Settle some orders, and write their round trips into ``done``."""
    n, on_market = len(orders), (*market.tape_E, friction_of(costs))
    side, distances = orders.side, (orders.take_profit, orders.stop_loss)
    lower_N, upper_N, units_N = np.empty(n), np.empty(n), np.empty(n)
    touched_N = np.empty(n, np.int64)
    decided_ns_N, entered_N = market.ts_P[orders.quote_index], market.rank_P[orders.quote_index]
    entry_N = done.entry_price
    ts, bid, ask, _, book, friction = on_market
    _enter(
        ts,
        bid,
        ask,
        book,
        friction,
        decided_ns_N,
        side,
        *distances,
        entered_N,
        entry_N,
        units_N,
        lower_N,
        upper_N,
    )
    for pyramid, wanted_N in ((market.leave_bought, side > 0), (market.leave_sold, side < 0)):
        first_outside_each(pyramid, wanted_N, entered_N + 1, lower_N, upper_N, touched_N)
    _leave(
        *on_market,
        market.index_E,
        entered_N,
        touched_N,
        side,
        entry_N,
        units_N,
        *distances,
        orders.time_limit_ns,
        done.entry_index,
        done.exit_index,
        done.exit_price,
        done.reason,
    )
    done.fees[:] = round_trip_fees(entry_N, done.exit_price, costs)
    done.pnl[:] = (done.exit_price - entry_N) * side * costs.multiplier - done.fees


def _with_carry(quotes: Quotes, orders: Orders, done: Transactions, costs: Costs) -> Transactions:
    """Return round trips whose profit counts what was paid while they were held."""
    carry = payments(quotes, costs)
    if not len(carry.ts):
        return done
    entered_ns, left_ns = (quotes.ts_event[index] for index in (done.entry_index, done.exit_index))
    return replace(done, pnl=done.pnl + carried_each(carry, orders.side, entered_ns, left_ns))


@fill_kernel
def _enter(  # type: ignore[no-untyped-def]
    ts,
    bid,
    ask,
    book,
    friction,
    decided_ns_N,
    side,
    take_profit,
    stop_loss,
    entered_N,
    entry_N,
    units_N,
    lower_N,
    upper_N,
):
    """Write each entry, and the band of exit touches in which neither barrier is reached.

    ``entered_N`` holds the first quote on which each order might enter, and then that on which it
    does.
    """
    end = len(ts)
    for n in range(len(entered_N)):
        k = first_at_or_after(ts, entered_N[n], later(decided_ns_N[n], friction.seen_ns))
        while k < end and not shown(book, side[n], k) > 0:
            k += 1
        entered_N[n] = k
        if k == end:
            entry_N[n], lower_N[n], upper_N[n] = np.nan, -np.inf, np.inf
            continue
        units_N[n], entry_N[n] = fill_entry(bid, ask, book, friction, k, side[n], 1.0)
        lower_N[n], upper_N[n] = band(side[n], entry_N[n], take_profit[n], stop_loss[n])


@fill_kernel
def _leave(  # type: ignore[no-untyped-def]
    ts,
    bid,
    ask,
    flags,
    book,
    friction,
    index_E,
    entered_N,
    touched_N,
    side,
    entry_N,
    units_N,
    take_profit,
    stop_loss,
    time_limit_ns,
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
        clock_ns = later(later(ts[entered], time_limit_ns[n]), friction.latency_ns)
        if k > entered + 1 and ts[k - 1] >= clock_ns:  # the time exit fills on an earlier quote
            k = first_at_or_after(ts, entered + 1, clock_ns)
        if k == end:
            continue
        touch = exit_touch(side[n], bid[k], ask[k])
        reason = barrier_reached(side[n], touch, entry_N[n], take_profit[n], stop_loss[n])
        if reason == CENSORED:
            reason = TIME
            last, price = leave_at_market(
                ts, bid, ask, flags, book, friction, side[n], k, clock_ns, units_N[n]
            )
        else:
            limit_price = barriers(side[n], entry_N[n], take_profit[n], stop_loss[n])[0]
            last, price = leave_at_barrier(
                ts,
                bid,
                ask,
                flags,
                book,
                friction,
                side[n],
                k,
                reason,
                limit_price,
                clock_ns,
                units_N[n],
            )
        if last >= 0:
            exit_index_N[n], exit_price_N[n], reason_N[n] = index_E[last], price, reason


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
    rate = costs.fee_bps * 1e-4 * costs.multiplier
    return rate * (entry + exit_price) + 2 * costs.fee_per_unit


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
