"""Rows for the ledger and the table for people."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from backtest_cases import BUY, SELL, START_NS, bids, signal, signals_of

from trademl.backtest.results import ledger_rows, trades_table
from trademl.backtest.run import backtest
from trademl.ledger.tables import Equity, Trade
from trademl.market.costs import Costs

QUOTES = bids(100, 101.5, 103)
SIGNALS = signals_of(signal(0, BUY, 1, 1, score=0.75), signal(1, SELL, 1, 1))


@pytest.fixture(scope="module")
def result():
    return backtest(QUOTES, SIGNALS, Costs(fee_per_unit=0.25), threshold=0.5, engines=["compiled"])


def test_trade_rows_say_what_happened(result):
    trades, _ = ledger_rows(result, QUOTES)

    assert trades[0] == {
        "number": 0,
        "order_id": 10,
        "side": "buy",
        "opened_at_ns": START_NS,
        "entry_price": 100.25,
        "closed_at_ns": START_NS + 1_000_000_000,
        "exit_price": 101.25,
        "exit_reason": "take_profit",
        "fees": 0.5,
        "pnl": 0.5,
        "score": 0.75,
        "decided_at_ns": START_NS,
        "size": 1.0,
        "gross_points": 1.0,
        "carry": 0.0,
        "tier": None,
        "latency_ms": None,
    }
    assert (trades[1]["side"], trades[1]["exit_reason"]) == ("sell", "stop_loss")


def test_rows_have_the_columns_of_the_ledger(result):
    trades, points = ledger_rows(result, QUOTES)
    of_allocations = {"instrument"}
    assert {"backtest_id", *trades[0]} | of_allocations == set(Trade.__table__.columns.keys())
    assert {"backtest_id", *points[0]} == set(Equity.__table__.columns.keys())


def test_rows_are_plain_values(result):
    json.dumps(ledger_rows(result, QUOTES))


def test_equity_rows_follow_the_curve(result):
    _, points = ledger_rows(result, QUOTES)

    assert points[-1] == {"ts_event_ns": int(QUOTES.ts_event[-1]), "equity": result.equity[-1]}


def test_table_shows_utc_times(result):
    table = trades_table(result, QUOTES)

    assert table.loc[0, "opened_at"] == pd.Timestamp("2023-11-14T22:13:20Z")
    assert table["side"].tolist() == ["buy", "sell"]


def test_no_trades_are_no_rows():
    result = backtest(QUOTES, SIGNALS, Costs(), threshold=1, engines=["compiled"])

    assert ledger_rows(result, QUOTES)[0] == []
    assert len(trades_table(result, QUOTES)) == 0
