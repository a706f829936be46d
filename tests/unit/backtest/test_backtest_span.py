"""The part of a recording that a backtest trades on: as far as its own costs carry the trades."""

from __future__ import annotations

import numpy as np
from backtest_cases import bids

from trademl.backtest.compiled import run_compiled
from trademl.backtest.jobs import signals_on
from trademl.ingest.batch import Batch
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.orders import ExitReason, Orders
from trademl.market.quotes import NS_PER_S

QUOTES = bids(100, 100, 102, 103, 104, 105)  # a second apart


def batch_recorded_at(costs):
    orders = Orders(
        np.array([1, 4]), np.ones(2, np.int8), np.full(2, 1.5), np.full(2, 1.5),
        np.full(2, 60 * NS_PER_S),
    )  # fmt: skip
    return Batch(QUOTES, orders, settle(QUOTES, orders, costs), np.array([7, 8]))


def test_a_trade_that_leaves_later_than_was_recorded_still_leaves():
    batch = batch_recorded_at(Costs())
    assert batch.transactions.exit_index[0] == 2
    late = Costs(latency_ms=1000, take_profit_is_market=True)
    signals, span = signals_on(batch, np.array([7]), np.array([0.9]), late)
    trades = run_compiled(span.quotes, signals, late)
    assert trades.reason.tolist() == [ExitReason.TAKE_PROFIT]
    assert trades.open_at_end is None
    assert span.quotes.ts_event[trades.exit_index[0]] == QUOTES.ts_event[5]


def test_what_the_recording_does_not_resolve_is_left_open_and_told():
    batch = batch_recorded_at(Costs())
    late = Costs(latency_ms=1000)
    signals, span = signals_on(batch, np.array([8]), np.array([0.9]), late)
    trades = run_compiled(span.quotes, signals, late)
    assert len(trades) == 0
    assert trades.open_at_end.order_id == 8


def test_the_recording_ends_with_the_last_exit():
    _, span = signals_on(batch_recorded_at(Costs()), np.array([7]), np.array([0.9]), Costs())
    assert len(span.quotes) == 2
