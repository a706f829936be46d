"""The one fill model: where, when and at what price an order enters and leaves.

Labels, order bot and every backtest engine call the functions of this module and no other.

Rules
-----
* An order fills on the first executable quote at or after its decision, never on an older one.
* It enters at the touch (a buy pays the ask) and leaves at the opposite touch (a bought position
  sells at the bid).
* Market fills (entry, stop, time exit) are worse than the touch by ``slippage``.
* A stop fills at the touch of the first executable quote at or beyond it: over a gap that is
  worse than the stop. A take profit is a resting limit: it fills at its own price, never better.
* Ties: exits are looked for on quotes after the entry quote, in file order. On the quote that
  reaches a barrier and the time limit at once, the barrier counts.
* A price within one part in 10^12 of a barrier has reached it, so that decimal prices tie as they
  are printed and not as binary fractions round.
* A flagged quote neither fills nor triggers anything.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.costs import Costs
from trademl.market.orders import ExitReason, Orders, Transactions
from trademl.market.quotes import Quotes

CENSORED = int(ExitReason.CENSORED)
TAKE_PROFIT = int(ExitReason.TAKE_PROFIT)
STOP_LOSS = int(ExitReason.STOP_LOSS)
TIME = int(ExitReason.TIME)
TIE_TOLERANCE = 1e-12  # of the entry price


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
def is_limit_reached(side: int, touch: float, limit_price: float, slack: float) -> bool:
    """Say whether the exit touch of a position of ``side`` reaches its take profit."""
    return (touch - limit_price) * side >= -slack


@njit(cache=True, nogil=True)
def is_stop_reached(side: int, touch: float, stop_price: float, slack: float) -> bool:
    """Say whether the exit touch of a position of ``side`` reaches its stop."""
    return (touch - stop_price) * side <= slack


@njit(cache=True, nogil=True)
def exit_on_quote(
    side: int,
    bid: float,
    ask: float,
    entry: float,
    take_profit: float,
    stop_loss: float,
    is_expired: bool,
    slippage: float,
) -> tuple[int, float]:
    """Return (reason, price) of the exit on one executable quote; reason 0 means stay.

    Parameters
    ----------
    side : int
        +1 for a bought position, -1 for a sold one.
    entry : float
        Entry price; the barriers are ``take_profit`` and ``stop_loss`` away from it.
    is_expired : bool
        Whether the quote's time is at or past the time limit.
    """
    touch = exit_touch(side, bid, ask)
    limit_price, stop_price = entry + side * take_profit, entry - side * stop_loss
    slack = TIE_TOLERANCE * entry
    if is_limit_reached(side, touch, limit_price, slack):
        return TAKE_PROFIT, limit_price
    if is_stop_reached(side, touch, stop_price, slack):
        return STOP_LOSS, market_exit_price(side, bid, ask, slippage)
    if is_expired:
        return TIME, market_exit_price(side, bid, ask, slippage)
    return CENSORED, np.nan


@njit(cache=True, nogil=True)
def next_executable(flags: NDArray[np.uint8], start: int) -> int:
    """Return the index of the first executable quote at or after ``start``, or -1."""
    for k in range(start, len(flags)):
        if flags[k] == 0:
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
) -> tuple[int, float, int, float, int]:
    """Carry one order from entry to exit.

    Parameters
    ----------
    ts_event, bid, ask, flags : ndarray of shape (P,)
        The recording, as in `Quotes`.
    decided_at : int
        Index of the quote on which the order is decided.
    time_limit_ns : int
        Longest life of the position after its entry.

    Returns
    -------
    tuple
        (entry_index, entry_price, exit_index, exit_price, reason); -1 and NaN where the
        recording ended before.

    Notes
    -----
    Causal: reads quotes from the decision to the exit and none after.
    """
    first = next_executable(flags, decided_at)
    if first < 0:
        return -1, np.nan, -1, np.nan, CENSORED
    entry = entry_price(side, bid[first], ask[first], slippage)
    expires_at = ts_event[first] + time_limit_ns
    for k in range(first + 1, len(flags)):
        if flags[k] != 0:
            continue
        reason, price = exit_on_quote(
            side, bid[k], ask[k], entry, take_profit, stop_loss, ts_event[k] >= expires_at, slippage
        )
        if reason != CENSORED:
            return first, entry, k, price, reason
    return first, entry, -1, np.nan, CENSORED


@njit(cache=True, nogil=True)
def _settle_all(  # type: ignore[no-untyped-def]
    ts_event,
    bid,
    ask,
    flags,
    decided_at,
    side,
    take_profit,
    stop_loss,
    time_limit_ns,
    slippage,
    entry_index,
    entry,
    exit_index,
    exit_price,
    reason,
):
    for n in range(len(decided_at)):
        entry_index[n], entry[n], exit_index[n], exit_price[n], reason[n] = settle_one(
            ts_event,
            bid,
            ask,
            flags,
            decided_at[n],
            side[n],
            take_profit[n],
            stop_loss[n],
            time_limit_ns[n],
            slippage,
        )


def settle(quotes: Quotes, orders: Orders, costs: Costs) -> Transactions:
    """Carry every order from entry to exit, each on its own, and return the round trips.

    Parameters
    ----------
    quotes : Quotes
        The recording, P quotes.
    orders : Orders
        N orders; `Orders.quote_index` must lie within the recording.
    costs : Costs
        Fees of both sides and slippage of market fills.

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
    """
    check_orders(quotes, orders)
    n = len(orders)
    entry_index, exit_index = np.empty(n, np.int64), np.empty(n, np.int64)
    entry, exit_price = np.empty(n), np.empty(n)
    reason = np.empty(n, np.int8)
    _settle_all(
        quotes.ts_event,
        quotes.bid,
        quotes.ask,
        quotes.flags,
        orders.quote_index,
        orders.side,
        orders.take_profit,
        orders.stop_loss,
        orders.time_limit_ns,
        costs.slippage,
        entry_index,
        entry,
        exit_index,
        exit_price,
        reason,
    )
    fees = round_trip_fees(entry, exit_price, costs)
    pnl = (exit_price - entry) * orders.side - fees
    return Transactions(entry_index, entry, exit_index, exit_price, reason, fees, pnl)


def round_trip_fees(
    entry: NDArray[np.float64], exit_price: NDArray[np.float64], costs: Costs
) -> NDArray[np.float64]:
    """Return the fees of both sides, per unit, in quote currency."""
    return costs.fee_bps * 1e-4 * (entry + exit_price) + 2 * costs.fee_per_unit


def check_orders(quotes: Quotes, orders: Orders) -> None:
    """Raise DataError if an order lies outside the recording or has no positive barrier."""
    outside = (orders.quote_index < 0) | (orders.quote_index >= len(quotes))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"order {row} is decided on quote {orders.quote_index[row]}, outside the recording "
            f"of {len(quotes)} quotes"
        )
    for name in ("take_profit", "stop_loss"):
        bad = ~(getattr(orders, name) > 0)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"order {row} has {name} {getattr(orders, name)[row]}, expected more than 0"
            )
