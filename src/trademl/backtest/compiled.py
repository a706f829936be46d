"""The compiled engine: one position at a time, settled by the one fill model.

Policy
------
* A signal is taken if nothing is open or waiting for a fill at its decision quote, else skipped.
  Of several signals on one quote the first is taken.
* Exits come before decisions: a position that ends on quote k leaves quote k free for a signal
  that is decided on it. An entry is never closed on its own quote, so no quote holds two entries.
* An entry that is in flight, or decided on a flagged quote, waits for the first executable quote
  from then on, and is never withdrawn.
* An entry that the venue rejects, or that limits on risk forbid, leaves the account free.
* What is still open when the recording ends is reported and is no trade.

Shape letters: P quotes, S signals.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from trademl.backtest.limits import GO, REJECTED, Limits, account_for, may_enter, new_account
from trademl.backtest.signals import Signals, check_signals
from trademl.backtest.trades import Trades, Trips
from trademl.market.adjustments import payments
from trademl.market.carry import Carry, carried
from trademl.market.compiling import fill_kernel
from trademl.market.costs import Costs
from trademl.market.fills import settle_one
from trademl.market.friction import friction_of, tape_of
from trademl.market.quotes import Quotes

NO_LIMITS = Limits()


@njit(nogil=True, inline="always")
def net_of(ts, friction, carry, side, entered, left, paid, got, units):  # type: ignore[no-untyped-def]
    """Return what a round trip earned after everything, in quote currency."""
    moved = (got - paid) * side * friction.multiplier
    fees = friction.fee_rate * (paid + got) + 2 * friction.fee_per_unit
    if len(carry.ts) > 0:
        moved += carried(carry, side, ts[entered], ts[left])
    return units * (moved - fees)


@fill_kernel
def _settle_in_turn(  # type: ignore[no-untyped-def]
    ts,
    bid,
    ask,
    flags,
    book,
    friction,
    carry,
    limits,
    account,
    decided_at,
    side,
    take_profit,
    stop_loss,
    time_limit_ns,
    size,
):
    """Return the rows taken, their entry and exit quotes and prices (taken, 2), why, units, counts.

    The last two are the signals rejected and halted.
    """
    n_signals = len(decided_at)
    rows, reason = np.empty(n_signals, np.int64), np.empty(n_signals, np.int8)
    index, price = np.empty((n_signals, 2), np.int64), np.empty((n_signals, 2))
    units = np.empty(n_signals)
    n, free_from, rejected, halted = 0, 0, 0, 0
    for s in range(n_signals):
        if decided_at[s] < free_from:
            continue
        answer = may_enter(limits, account, ts[decided_at[s]])
        if answer != GO:
            rejected += answer == REJECTED
            halted += answer != REJECTED
            continue
        entered, paid, left, got, why, filled = settle_one(
            ts,
            bid,
            ask,
            flags,
            book,
            friction,
            decided_at[s],
            side[s],
            take_profit[s],
            stop_loss[s],
            time_limit_ns[s],
            min(size[s], limits.max_units),
        )
        rows[n], reason[n], units[n] = s, why, filled
        index[n, 0], index[n, 1], price[n, 0], price[n, 1] = entered, left, paid, got
        n += 1
        free_from = left if left >= 0 else len(ts)
        if left >= 0:
            net = net_of(ts, friction, carry, side[s], entered, left, paid, got, filled)
            account_for(account, ts[left], net)
    return rows[:n], index[:n], price[:n], reason[:n], units[:n], rejected, halted


def run_compiled(
    quotes: Quotes,
    signals: Signals,
    costs: Costs,
    *,
    limits: Limits = NO_LIMITS,
    carry: Carry | None = None,
) -> Trades:
    """Trade the signals, one position at a time, and return the trades.

    Parameters
    ----------
    quotes : Quotes
        The recording, P quotes.
    signals : Signals
        S entries that the model wants, in the order of their decisions.
    costs : Costs
        What trading costs.
    limits : Limits
        Which entries are not made.
    carry : Carry, optional
        What holding earns; the financing of ``costs`` where left out.

    Raises
    ------
    DataError
        If the signals cannot be traded on the recording.

    Notes
    -----
    Causal: a trade reads quotes from its decision to its exit and none after.
    """
    check_signals(quotes, signals)
    carry = payments(quotes, costs) if carry is None else carry
    orders = signals.orders
    rows, index, price, reason, units, rejected, halted = _settle_in_turn(
        *tape_of(quotes, costs),
        friction_of(costs),
        carry,
        limits.numbers,
        new_account(),
        orders.quote_index,
        orders.side,
        orders.take_profit,
        orders.stop_loss,
        orders.time_limit_ns,
        signals.units,
    )
    trips = Trips(
        signals.order_id[rows],
        orders.side[rows],
        index,
        price,
        reason,
        units,
        signals.score[rows],
        orders.quote_index[rows],
    )
    return trips.trades(
        quotes.ts_event,
        costs,
        carry,
        skipped_while_in_position=len(signals) - len(rows) - rejected - halted,
        rejected=rejected,
        halted=halted,
    )
