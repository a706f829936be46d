"""One backtest from signals to metrics, and what it says when engines differ."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from backtest_cases import BUY, bids, signal, signals_of

from trademl.backtest import run as run_module
from trademl.backtest.compiled import run_compiled
from trademl.backtest.parity import check_parity
from trademl.backtest.run import backtest
from trademl.errors import ConfigError, ParityError
from trademl.market.costs import Costs

NAMES = ("compiled", "backtrader")
COSTS = Costs(fee_per_unit=0.125)
QUOTES = bids(100, 101.5, 100, 99.5, 98, 100, 101.5)
SIGNALS = signals_of(*(signal(k, BUY, 1, 1, score=s) for k, s in ((0, 0.9), (2, 0.4), (5, 0.7))))


class Listener:
    def __init__(self):
        self.heard = []

    def step(self, name, detail=""):
        self.heard.append(name)

    def advance(self, done, total):
        pass

    def done(self, detail=""):
        self.heard.append(detail)


def test_only_flagged_signals_are_traded_beside_a_baseline_of_all():
    result = backtest(QUOTES, SIGNALS, COSTS, threshold=0.7)

    assert result.trades.order_id.tolist() == [10, 12]
    assert result.metrics["n_trades"] == 2
    assert result.metrics["n_flagged"] == 2
    assert result.metrics["n_signals"] == 3
    assert result.metrics["baseline"]["n_trades"] == 3
    assert result.metrics["net_pnl"] == 1.5
    assert result.metrics["baseline"]["net_pnl"] == -1.0


def test_equity_ends_where_the_metrics_do():
    result = backtest(QUOTES, SIGNALS, COSTS, threshold=0.0)

    assert result.equity[-1] == result.metrics["final_equity"] == -1.0
    assert result.equity_ts_ns[-1] == QUOTES.ts_event[-1]


def test_metrics_name_the_engines_and_are_json():
    metrics = backtest(QUOTES, SIGNALS, COSTS, threshold=0.5).metrics

    assert metrics["engines"] == ["compiled", "backtrader"]
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_threshold_above_every_score_makes_no_trades():
    result = backtest(QUOTES, SIGNALS, COSTS, threshold=0.95)

    assert result.metrics["n_trades"] == 0
    assert result.metrics["hit_rate"] is None
    assert set(result.equity) == {0.0}


def test_progress_is_told_of_every_engine_and_the_baseline():
    listener = Listener()

    backtest(QUOTES, SIGNALS, COSTS, threshold=0.5, progress=listener)

    assert listener.heard == [
        "backtest: compiled",
        "2 trades, net 1.50",
        "backtest: backtrader",
        "2 trades, net 1.50",
        "backtest: always-in baseline",
        "3 trades, net -1.00",
    ]


def test_unknown_engine_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="'zipline': choose from compiled, backtrader"):
        backtest(QUOTES, SIGNALS, COSTS, threshold=0.5, engines=("zipline",))


def test_no_engine_is_an_error():
    with pytest.raises(ConfigError, match="no engine is named"):
        backtest(QUOTES, SIGNALS, COSTS, threshold=0.5, engines=())


def test_missing_backtrader_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "trademl.backtest.backtrader_engine", None)

    with pytest.raises(ConfigError, match=r"pip install 'trademl\[backtest\]'"):
        backtest(QUOTES, SIGNALS, COSTS, threshold=0.5)


def test_engine_that_fills_differently_is_caught(monkeypatch):
    def generous(quotes, signals, costs, **options):
        return run_compiled(quotes, signals, Costs())

    monkeypatch.setitem(run_module.ENGINES, "backtrader", lambda: generous)

    with pytest.raises(ParityError, match=r"entry_fees is 0\.125 by compiled, 0\.0 by"):
        backtest(QUOTES, SIGNALS, COSTS, threshold=0.5)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("order_id", 1),
        ("entry_index", 1),
        ("exit_index", -1),
        ("entry_price", 2e-9),
        ("exit_price", -0.01),
        ("pnl", 0.01),
        ("reason", 1),
    ],
)
def test_parity_names_the_first_trade_that_differs(name, change):
    trades = run_compiled(QUOTES, SIGNALS, COSTS)
    column = getattr(trades, name).copy()
    column[1:] += column.dtype.type(change)

    with pytest.raises(ParityError, match=rf"differ at trade 1 \(order 11\): {name} is"):
        check_parity(trades, replace(trades, **{name: column}), names=NAMES)


def test_parity_names_the_trade_that_one_engine_lacks():
    trades = run_compiled(QUOTES, SIGNALS, COSTS)
    fewer = run_compiled(QUOTES, SIGNALS.flagged(0.8), COSTS)

    with pytest.raises(ParityError, match=r"compiled made 3 trades and backtrader 1: .* trade 1 "):
        check_parity(trades, fewer, names=NAMES)


def test_parity_looks_at_what_the_end_left():
    trades = run_compiled(QUOTES, SIGNALS, COSTS)

    with pytest.raises(ParityError, match="unfilled is 0 by compiled, 1 by backtrader"):
        check_parity(trades, replace(trades, unfilled=1), names=NAMES)


def test_parity_allows_the_rounding_of_a_sum():
    trades = run_compiled(QUOTES, SIGNALS, COSTS)

    check_parity(trades, replace(trades, pnl=trades.pnl + 1e-13), names=NAMES)
