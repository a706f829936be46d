"""Policies that say what to hold: long, short or flat, by market orders, on the one fill model.

Policy
------
* A target that differs from the last one sends a market order for what is missing, and withdraws
  what an earlier order has not filled. The same target again changes nothing.
* Fills come before decisions: what an order finds on the quote of the next decision is its own.
* An order fills at most once a quote, with no more than the quote shows; the rest goes on.
* Limits on risk are looked at on decisions: beyond a limit the target is 0.

Shape letters: P quotes, D decisions, F fills, N trades.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.backtest.compiled import NO_LIMITS
from trademl.backtest.limits import Limits, account_value, may_hold, new_account
from trademl.backtest.trades import Fills, OpenPosition, Trades
from trademl.errors import DataError
from trademl.market.adjustments import payments
from trademl.market.carry import Carry, carried
from trademl.market.compiling import fill_kernel
from trademl.market.costs import Costs
from trademl.market.fills import (
    ROUNDING,
    entry_price,
    exit_touch,
    later,
    next_fill,
    shown,
)
from trademl.market.friction import friction_of, slippage_on, tape_of
from trademl.market.orders import ExitReason
from trademl.market.quotes import Quotes

ROOM = 1_024


@dataclass(frozen=True, slots=True)
class Targets:
    """What to hold from each of D decisions on.

    Parameters
    ----------
    quote_index : ndarray of int64, shape (D,)
        Quotes on which it is decided, strictly increasing.
    units : ndarray of float64, shape (D,)
        Units wanted, negative for a sold position.
    """

    quote_index: NDArray[np.int64]
    units: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.quote_index)


def entries_and_exits(
    enter_long_P: NDArray[np.bool_],
    exit_long_P: NDArray[np.bool_],
    enter_short_P: NDArray[np.bool_],
    exit_short_P: NDArray[np.bool_],
    *,
    size: float = 1.0,
) -> Targets:
    """Return the targets of signals to enter and to leave, looked at on every quote.

    An entry the other way turns a position round. Where one quote says enter and leave at once, it
    leaves; where it says long and short at once, nothing changes.
    """
    at, units, held = [], [], 0.0
    columns = (enter_long_P, exit_long_P, enter_short_P, exit_short_P)
    for k in np.flatnonzero(np.logical_or.reduce(columns)):
        up, leave_up, down, leave_down = (bool(column[k]) for column in columns)
        wanted = held
        if (held > 0 and leave_up) or (held < 0 and leave_down):
            wanted = 0.0
        if up != down:
            if up and not leave_up:
                wanted = size
            elif down and not leave_down:
                wanted = -size
        if wanted != held:
            at.append(k)
            units.append(wanted)
            held = wanted
    return Targets(np.array(at, np.int64), np.array(units, float))


def check_targets(quotes: Quotes, targets: Targets) -> None:
    """Raise DataError if a decision is out of order or outside, or a target is no number."""
    at, units = targets.quote_index, targets.units
    if len(at) != len(units):
        raise DataError(f"{len(at)} decisions have {len(units)} targets, expected as many")
    for is_bad, what in (
        ((at < 0) | (at >= len(quotes)), f"outside the recording of {len(quotes)} quotes"),
        (np.diff(at, prepend=-1) <= 0, "not after the decision above it: sort by quote_index"),
        (~np.isfinite(units), "without a finite number of units"),
    ):
        if is_bad.any():
            row = int(np.flatnonzero(is_bad)[0])
            raise DataError(f"target {row} ({units[row]} units) on quote {at[row]} is {what}")


def run_compiled_targets(
    quotes: Quotes,
    targets: Targets,
    costs: Costs,
    *,
    limits: Limits = NO_LIMITS,
    carry: Carry | None = None,
) -> Trades:
    """Hold what the targets say, and return the trades from flat to flat.

    Raises
    ------
    DataError
        If the targets cannot be followed on the recording.

    Notes
    -----
    Causal: a fill reads quotes up to its own.
    """
    check_targets(quotes, targets)
    carry = payments(quotes, costs) if carry is None else carry
    index, units, price, halted = _follow(
        *tape_of(quotes, costs),
        friction_of(costs),
        carry,
        limits.numbers,
        new_account(),
        targets.quote_index,
        targets.units,
    )
    made = trades_of_fills(quotes, Fills(index, units, price), costs, carry)
    return replace(made, halted=halted)


def trades_of_fills(quotes: Quotes, fills: Fills, costs: Costs, carry: Carry) -> Trades:
    """Return round trips from flat to flat; a fill that turns a position round ends one trip.

    Prices of a trip are means over its entries and its exits, its size all units entered.
    """
    trips_N, money_N, n_closed = _round_trips(
        quotes.ts_event, friction_of(costs), carry, fills.index, fills.units, fills.price
    )
    closed, rest = slice(0, n_closed), money_N[n_closed:]
    side, entered, left = np.ascontiguousarray(trips_N[closed].T)
    size, paid, got, entry_fees, fees, held = np.ascontiguousarray(money_N[closed].T)
    open_ = None
    if len(rest):
        side_, entered_, _ = trips_N[n_closed]
        open_ = OpenPosition(
            int(entered_), int(side_), int(entered_), rest[0, 1], rest[0, 4], np.nan, rest[0, 0]
        )
    return Trades(
        order_id=entered,
        side=side.astype(np.int8),
        entry_index=entered,
        entry_price=paid,
        exit_index=left,
        exit_price=got,
        reason=np.full(n_closed, ExitReason.SIGNAL, np.int8),
        entry_fees=entry_fees,
        fees=fees,
        pnl=(got - paid) * side * size * costs.multiplier - fees + held,
        score=np.full(n_closed, np.nan),
        size=size,
        carry=held,
        open_at_end=open_,
        fills=fills,
    )


@fill_kernel
def _follow(  # type: ignore[no-untyped-def]
    ts, bid, ask, flags, book, friction, carry, limits, account, decided_at, units_D
):
    """Return quotes, units and prices of the fills, and how many targets limits set to 0."""
    at_F, units_F, price_F = np.empty(ROOM, np.int64), np.empty(ROOM), np.empty(ROOM)
    n, halted, position, cash, wanted, rest = 0, 0, 0.0, 0.0, 0.0, 0.0
    arrives_at, start, ordered, carried_until = 0, 0, 0.0, -(2**62)
    for d in range(len(decided_at) + 1):
        until = decided_at[d] if d < len(decided_at) else len(ts) - 1
        while rest != 0:
            side = 1 if rest > 0 else -1
            k = next_fill(ts, flags, book, start, arrives_at, side)
            if k < 0 or k > until:
                break
            part = min(abs(rest), shown(book, side, k))
            worse = slippage_on(bid, ask, book, friction, k, part)
            price = entry_price(side, bid[k], ask[k], worse)
            if n == len(at_F):
                at_F, units_F, price_F = _twice(at_F), _twice(units_F), _twice(price_F)
            at_F[n], units_F[n], price_F[n] = k, side * part, price
            n += 1
            if position != 0:
                held = 1 if position > 0 else -1
                cash += abs(position) * carried(carry, held, carried_until, ts[k])
            carried_until = ts[k]
            cash -= side * part * price * friction.multiplier
            cash -= part * (friction.fee_rate * price + friction.fee_per_unit)
            position += side * part
            rest -= side * part
            if abs(rest) <= ROUNDING * abs(ordered):
                rest = 0.0
            start = k + 1
        if d == len(decided_at):
            break
        value = cash + _worth(ts, bid, ask, flags, friction, carry, until, position, carried_until)
        account_value(account, ts[until], value)
        target = units_D[d]
        if not may_hold(limits, account):
            halted += target != 0
            target = 0.0
        target = min(max(target, -limits.max_units), limits.max_units)
        if target != wanted:
            wanted, rest, ordered = target, target - position, target - position
            start, arrives_at = until, later(ts[until], friction.seen_ns)
    return at_F[:n], units_F[:n], price_F[:n], halted


@njit(nogil=True, inline="always")
def _worth(ts, bid, ask, flags, friction, carry, at, position, carried_until):  # type: ignore[no-untyped-def]
    """Return what a position is worth on a quote, at the exit touch of the last executable one."""
    if position == 0:
        return 0.0
    seen, side = at, 1 if position > 0 else -1
    while seen >= 0 and flags[seen] != 0:
        seen -= 1
    value = position * exit_touch(side, bid[seen], ask[seen]) * friction.multiplier
    return value + abs(position) * carried(carry, side, carried_until, ts[at])


@njit(nogil=True, inline="always")
def _twice(column):  # type: ignore[no-untyped-def]
    larger = np.empty(2 * len(column), column.dtype)
    larger[: len(column)] = column
    return larger


@fill_kernel
def _round_trips(ts, friction, carry, index_F, units_F, price_F):  # type: ignore[no-untyped-def]
    """Return (side, entry, exit), (size, paid, got, entry fee, fees, carry), and how many closed.

    One more row than closed where a position is open at the end; its size is what is held.
    """
    trips = np.empty((len(index_F) + 1, 3), np.int64)
    money = np.zeros((len(index_F) + 1, 6))
    n, position, held_since = 0, 0.0, 0
    for f in range(len(index_F)):
        k, rest, price = index_F[f], units_F[f], price_F[f]
        if position != 0 and len(carry.ts) > 0:
            side = 1 if position > 0 else -1
            money[n, 5] += abs(position) * carried(carry, side, held_since, ts[k])
        held_since = ts[k]
        if position * rest < 0:  # leaves, in part or as a whole
            part = min(abs(rest), abs(position))
            money[n, 2] += part * price
            money[n, 4] += part * (friction.fee_rate * price + friction.fee_per_unit)
            side = 1 if position > 0 else -1
            position -= side * part
            rest += side * part
            if abs(position) <= ROUNDING * money[n, 0]:
                position = 0.0
                trips[n, 2] = k
                money[n, 1] /= money[n, 0]
                money[n, 2] /= money[n, 0]
                n += 1
            if abs(rest) <= ROUNDING * abs(units_F[f]):
                continue
        if rest != 0:
            if position == 0:
                trips[n, 0], trips[n, 1], trips[n, 2] = 1 if rest > 0 else -1, k, -1
            fee = abs(rest) * (friction.fee_rate * price + friction.fee_per_unit)
            money[n, 0] += abs(rest)
            money[n, 1] += abs(rest) * price
            money[n, 3] += fee
            money[n, 4] += fee
            position += rest
    n_closed = n
    if position != 0:
        money[n, 1] /= money[n, 0]
        money[n, 0] = abs(position)
        n += 1
    return trips[:n], money[:n], n_closed
