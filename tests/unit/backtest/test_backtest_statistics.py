"""Equity and figures of backtests, worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from backtest_cases import BUY, FAR, SELL, bids, quotes_of, signal, signals_of

from trademl.backtest.compiled import run_compiled
from trademl.backtest.statistics import equity_curve, equity_on_quotes, performance
from trademl.errors import ConfigError
from trademl.market.costs import Costs
from trademl.market.quotes import NS_PER_S

FREE = Costs()
CROSSED = (101.0, 100.0)


def test_open_position_is_marked_at_the_exit_touch_after_its_entry_fee():
    quotes = bids(100, 101, 103, 100)
    trades = run_compiled(quotes, signals_of(signal(0, BUY, 2, 2)), Costs(fee_per_unit=0.5))

    # bought at 100.25: -0.25 - 0.5, then 0.75 - 0.5, then 2 - 1 for good
    assert equity_on_quotes(quotes, trades).tolist() == [-0.75, 0.25, 1.0, 1.0]


def test_sold_position_is_marked_at_the_ask():
    quotes = bids(100, 99, 101)
    trades = run_compiled(quotes, signals_of(signal(0, SELL)), FREE)

    assert equity_on_quotes(quotes, trades).tolist() == [-0.25, 0.75, -1.25]


def test_flagged_quote_leaves_the_mark_where_it_was():
    quotes = quotes_of((100, 100.25), (101, 101.25), CROSSED, (np.nan, 90))
    trades = run_compiled(quotes, signals_of(signal(0)), FREE)

    assert equity_on_quotes(quotes, trades).tolist() == [-0.25, 0.75, 0.75, 0.75]


def test_equity_carries_over_a_quote_that_ends_one_trade_and_begins_the_next():
    quotes = bids(100, 101.5, 101.75)
    trades = run_compiled(quotes, signals_of(signal(0, BUY, 1, 1), signal(1, BUY, 1, 1)), FREE)

    assert equity_on_quotes(quotes, trades).tolist() == [-0.25, 1 - 0.25, 1 + 0.0]


def test_curve_samples_the_equity_and_ends_with_the_last_quote():
    quotes = bids(100, 101, 102, 103, at_s=[0, 50, 70, 130])
    trades = run_compiled(quotes, signals_of(signal(0)), FREE)

    ts_ns, equity = equity_curve(quotes, trades, every_s=60)

    assert ((ts_ns - ts_ns[0]) / NS_PER_S).tolist() == [0, 60, 120, 130]
    assert equity.tolist() == [-0.25, 0.75, 1.75, 2.75]


def test_curve_adds_no_points_while_no_quote_comes():
    quotes = bids(100, 101, at_s=[0, 1_000_000])

    ts_ns, _ = equity_curve(quotes, run_compiled(quotes, signals_of(), FREE))

    assert len(ts_ns) == 2


def test_curve_of_no_quotes_is_empty():
    quotes = quotes_of()

    ts_ns, equity = equity_curve(quotes, run_compiled(quotes, signals_of(), FREE))

    assert len(ts_ns) == len(equity) == 0


def test_curve_needs_a_step():
    quotes = bids(100)
    with pytest.raises(ConfigError, match="step of 0 s"):
        equity_curve(quotes, run_compiled(quotes, signals_of(), FREE), every_s=0)


@pytest.fixture
def figures():
    """A win of 1 in [0, 1] s, a loss of 2.25 in [2, 4] s, a win of 1 in [5, 10] s."""
    quotes = bids(100, 101.5, 100, 99.5, 98, 100, 101.5, at_s=[0, 1, 2, 3, 4, 5, 10])
    signals = signals_of(*(signal(k, BUY, 1, 1) for k in (0, 2, 5)))
    return performance(quotes, run_compiled(quotes, signals, Costs(fee_per_unit=0.125)))


def test_money_adds_up(figures):
    # before fees: 1, 98 - 100.25 = -2.25, 1; each trade pays 0.25
    assert figures["gross_pnl"] == -0.25
    assert figures["fees"] == 0.75
    assert figures["net_pnl"] == figures["final_equity"] == -1.0
    assert figures["average_trade"] == pytest.approx(-1 / 3)


def test_trades_are_counted(figures):
    assert figures["n_trades"] == 3
    assert figures["hit_rate"] == pytest.approx(2 / 3)
    assert figures["profit_factor"] == 1.5 / 2.5
    assert figures["exits"] == {"take_profit": 2, "stop_loss": 1, "time": 0, "signal": 0}


def test_exposure_is_the_share_of_the_span_in_position(figures):
    assert figures["exposure"] == 0.8


def test_drawdown_is_seen_on_every_quote(figures):
    # equity after each quote: -0.375, 0.75, 0.375, -0.125, -1.75, -2.125, -1
    assert figures["max_drawdown"] == 0.75 + 2.125
    assert figures["max_drawdown_s"] == 9


def test_drawdown_counts_from_zero_where_equity_never_rises():
    quotes = bids(100, 99, 98, at_s=[0, 4, 6])

    figures = performance(quotes, run_compiled(quotes, signals_of(signal(0)), FREE))

    assert figures["max_drawdown"] == 2.25
    assert figures["max_drawdown_s"] == 6


def test_drawdown_ends_where_the_peak_is_regained():
    quotes = bids(100, 101, 100, 102, 101, at_s=[0, 1, 2, 20, 21])

    figures = performance(quotes, run_compiled(quotes, signals_of(signal(0)), FREE))

    assert figures["max_drawdown_s"] == 19


def test_no_trades_leave_ratios_undefined():
    figures = performance(bids(100, 101), run_compiled(bids(100, 101), signals_of(), FREE))

    undefined = {name for name, value in figures.items() if value is None}
    assert undefined == {"average_trade", "hit_rate", "profit_factor", "stopped"}
    assert figures["max_drawdown"] == figures["exposure"] == 0


def test_trades_without_a_loss_have_no_profit_factor():
    quotes = bids(100, 101.5)

    figures = performance(quotes, run_compiled(quotes, signals_of(signal(0, BUY, 1, FAR)), FREE))

    assert figures["profit_factor"] is None


def test_open_position_is_told_apart_from_trades():
    quotes = bids(100, 102)

    figures = performance(quotes, run_compiled(quotes, signals_of(signal(0)), FREE))

    assert figures["is_open_at_end"] is True
    assert (figures["net_pnl"], figures["open_pnl"], figures["final_equity"]) == (0, 1.75, 1.75)
    assert figures["exposure"] == 1


@pytest.mark.parametrize("rows", [[], [(100, 100.25)], [(100, 100.25), CROSSED]])
def test_figures_are_json_even_of_next_to_nothing(rows):
    quotes = quotes_of(*rows)
    signals = signals_of(*[signal(0)][: len(rows)])

    json.dumps(performance(quotes, run_compiled(quotes, signals, FREE)), allow_nan=False)
