"""The engine of orders on bars: one position at a time, settled as their labels are.

Policy: that of `trademl.backtest.compiled`, on `trademl.market.bars`. A position that ends within a
bar ends at that bar's close for whoever decides next, so a signal decided there may follow it.

Shape letters: P bars, S signals.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.compiled import run_compiled
from trademl.backtest.limits import GO, REJECTED, Limits, account_for, may_enter, new_account
from trademl.backtest.signals import Signals, check_signals
from trademl.backtest.trades import Trades, Trips
from trademl.errors import DataError
from trademl.ingest.batch import Batch
from trademl.market.adjustments import payments
from trademl.market.bars import Bars, settle_on_bars
from trademl.market.carry import Carry
from trademl.market.compiling import fill_kernel
from trademl.market.costs import Costs
from trademl.market.quotes import Quotes

BARS_ENGINE = "bars"


class Engine(Protocol):
    """What every engine does with signals."""

    def __call__(
        self,
        quotes: Quotes,
        signals: Signals,
        costs: Costs,
        *,
        limits: Limits,
        carry: Carry | None,
    ) -> Trades:
        """Trade the signals, one position at a time."""


def trader_on(bars: Bars | None) -> Engine:
    """Return the engine of a recording: of bars where there are any, else the compiled one."""
    if bars is None:
        return run_compiled

    def trade(
        quotes: Quotes, signals: Signals, costs: Costs, *, limits: Limits, carry: Carry | None
    ) -> Trades:
        return run_on_bars(bars, quotes, signals, costs, limits=limits, carry=carry)

    return trade


def run_on_bars(
    bars: Bars,
    quotes: Quotes,
    signals: Signals,
    costs: Costs,
    *,
    limits: Limits,
    carry: Carry | None = None,
) -> Trades:
    """Trade the signals on bars, one position at a time, and return the trades.

    Parameters
    ----------
    bars : Bars
        The recording, P bars.
    quotes : Quotes
        Their closes, one each.

    Raises
    ------
    ConfigError
        If the costs need quotes.
    DataError
        If the signals cannot be traded on the recording.

    Notes
    -----
    Causal: a trade reads bars from its decision to its exit and none after.
    """
    check_signals(quotes, signals)
    carry = payments(quotes, costs) if carry is None else carry
    orders = signals.orders
    wider, paid = _at_their_spread(bars, costs)
    done = settle_on_bars(wider, orders, paid).transactions
    units_S = np.minimum(signals.units, limits.max_units)
    rows, rejected, halted = _take_turns(
        quotes.ts_event,
        limits.numbers,
        new_account(),
        orders.quote_index,
        done.exit_index,
        units_S * done.pnl,
    )
    trips = Trips(
        signals.order_id[rows],
        orders.side[rows],
        np.stack([done.entry_index, done.exit_index], axis=1)[rows],
        np.stack([done.entry_price, done.exit_price], axis=1)[rows],
        done.reason[rows],
        units_S[rows],
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


def signals_on_bars(
    batch: Batch, order_id_N: NDArray[np.int64], score_N: NDArray[np.float64]
) -> tuple[Signals, Batch]:
    """Return orders of a batch on bars as signals, on the recording from the first of them on.

    Raises
    ------
    DataError
        If a row is no order of the batch.
    """
    row_N = np.searchsorted(batch.order_id, order_id_N)
    is_known = batch.order_id[np.minimum(row_N, len(batch) - 1)] == order_id_N
    if not len(row_N) or not is_known.all():
        raise DataError("the dataset's rows are not orders of its batch: build it again")
    chosen = batch.take(row_N)
    span = chosen.cut(int(chosen.orders.quote_index[0]), len(batch.quotes))
    return Signals(span.orders, order_id_N, score_N), span


def _at_their_spread(bars: Bars, costs: Costs) -> tuple[Bars, Costs]:
    """Return bars as wide as the costs make them, around the same mids, and the other costs."""
    if costs.spread_scale == 1:
        return bars, costs
    more = (costs.spread_scale - 1) * bars.spread / 2
    wider = replace(
        bars,
        open=bars.open - more,
        high=bars.high - more,
        low=bars.low - more,
        close=bars.close - more,
        spread=costs.spread_scale * bars.spread,
    )
    return wider, replace(costs, spread_scale=1.0)


@fill_kernel
def _take_turns(ts_event, limits, account, decided, left, pnl):  # type: ignore[no-untyped-def]
    """Return which signals become positions, and how many were rejected and halted."""
    rows = np.empty(len(decided), np.int64)
    n, free_from, rejected, halted = 0, 0, 0, 0
    for s in range(len(decided)):
        if decided[s] < free_from:
            continue
        answer = may_enter(limits, account, ts_event[decided[s]])
        if answer != GO:
            rejected += answer == REJECTED
            halted += answer != REJECTED
            continue
        rows[n] = s
        n += 1
        free_from = left[s] if left[s] >= 0 else len(ts_event)
        if left[s] >= 0:
            account_for(account, ts_event[left[s]], pnl[s])
    return rows[:n], rejected, halted
