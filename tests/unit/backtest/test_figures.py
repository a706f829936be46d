"""Figures against hand calculation and an independent formula, and what stands beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from backtest_cases import BUY, bids, signal, signals_of

from trademl.backtest.benchmarks import always_in, random_holdings
from trademl.backtest.compiled import run_compiled
from trademl.backtest.figures import figures, figures_of, returns_of, trades_of
from trademl.backtest.run import backtest
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.statistics import equity_curve, performance
from trademl.market.costs import Costs
from trademl.market.quotes import NS_PER_S

RETURNS = np.array([0.01, -0.02, 0.03, -0.01, 0.02, 0.0])
PER_YEAR = 252.0


@pytest.fixture
def found():
    return figures_of(RETURNS, PER_YEAR)


def test_sharpe_is_mean_over_deviation_a_year(found):
    by_hand = RETURNS.mean() / RETURNS.std(ddof=1) * math.sqrt(PER_YEAR)

    assert found["sharpe"] == pytest.approx(by_hand)


def test_sortino_counts_what_falls_below_zero_alone(found):
    downside = math.sqrt((0.02**2 + 0.01**2) / 6)

    assert found["sortino"] == pytest.approx(RETURNS.mean() / downside * math.sqrt(PER_YEAR))


def test_volatility_and_return_are_those_of_a_year(found):
    assert found["annual_volatility"] == pytest.approx(RETURNS.std(ddof=1) * math.sqrt(PER_YEAR))
    assert found["annual_return"] == pytest.approx(RETURNS.mean() * PER_YEAR)


def test_drawdown_is_of_the_sum_and_calmar_is_the_return_over_it(found):
    # sums: 0.01, -0.01, 0.02, 0.01, 0.03, 0.03: 0.02 below the first peak
    assert found["max_drawdown"] == pytest.approx(-0.02)
    assert found["max_drawdown_steps"] == 1
    assert found["calmar"] == pytest.approx(RETURNS.mean() * PER_YEAR / 0.02)


def test_figures_of_one_return_are_undefined():
    assert set(figures_of(RETURNS[:1], PER_YEAR).values()) == {None}


def test_returns_are_profits_over_the_capital():
    ts_ns = np.arange(0, 400 * 60, 60) * NS_PER_S

    returns = returns_of(ts_ns, np.arange(400.0), capital=1_000.0)

    assert returns.step_s == 60
    assert returns.value_T[1:].tolist() == pytest.approx([0.001] * 399)


def test_turnover_is_what_is_bought_and_sold_in_a_year_over_the_capital():
    quotes = bids(100, 101.5, 103)
    costs, config = Costs(), BacktestConfig(capital=1_000, reject_share=0.0)
    trades = run_compiled(quotes, signals_of(signal(0, BUY, 1, 1)), costs)
    ts_ns, equity = equity_curve(quotes, trades)

    told = figures(quotes, trades, ts_ns, equity, costs, config, seed=1)

    a_year = 365.25 * 86_400 / 2  # spans of two seconds
    assert told["turnover_per_year"]["value"] == pytest.approx((100.25 + 101.25) / 1_000 * a_year)


def test_capacity_is_what_nine_of_ten_entries_found_shown():
    from dataclasses import replace

    n = 11
    quotes = bids(*([100.0] * n))
    sizes = np.arange(1.0, n + 1)
    quotes = replace(quotes, bid_size=np.full(n, 99.0), ask_size=sizes)
    signals = signals_of(*(signal(k, BUY, time_limit_s=1) for k in range(n - 1)))
    trades = run_compiled(quotes, signals, Costs(partial_fills=False))

    assert len(trades) == n - 1
    told = trades_of(quotes, trades, Costs(), BacktestConfig()).figures()
    assert told["capacity_units"] == pytest.approx(np.quantile(sizes[:-1], 0.1))
    unknown = trades_of(bids(*([100.0] * n)), trades, Costs(), BacktestConfig()).figures()
    assert unknown["capacity_units"] is None


def test_every_figure_has_an_interval_that_holds_it_and_benchmarks_beside_it():
    rng = np.random.default_rng(5)
    quotes = bids(*(1_000 + np.cumsum(rng.normal(0, 1, 20_000))), spread=0.0)
    signals = signals_of(*(signal(k, BUY, 5, 5, score=rng.random()) for k in range(0, 19_000, 20)))
    result = backtest(quotes, signals, Costs(), threshold=0.5, engines=["compiled"])

    told = {n: v for n, v in result.metrics["figures"].items() if isinstance(v, dict)}
    unknown = {"capacity_units"}  # no sizes are shown
    for name in told.keys() - unknown:
        assert told[name]["low"] <= told[name]["value"] <= told[name]["high"], name
    for beside in result.metrics["benchmarks"].values():
        assert beside["figures"].keys() == told.keys()


def test_random_entries_hold_for_as_long_as_the_backtest():
    rng = np.random.default_rng(5)
    quotes = bids(*(1_000 + np.cumsum(rng.normal(0, 1, 20_000))), spread=0.0)
    clustered = [0.9 if k % 4_000 < 800 else 0.1 for k in range(0, 19_000, 20)]
    signals = signals_of(
        *(signal(k, BUY, 5, 5, 60, s) for k, s in zip(range(0, 19_000, 20), clustered, strict=True))
    )
    result = backtest(quotes, signals, Costs(), threshold=0.5, engines=["compiled"])

    by_chance = result.metrics["benchmarks"]["random_entry"]["exposure"]

    assert by_chance == pytest.approx(result.metrics["exposure"], rel=0.05)


def test_random_holdings_are_held_as_often_and_as_long_and_always_in_nearly_always():
    quotes = bids(*(100 + np.cumsum(np.random.default_rng(1).normal(0, 1, 5_000))))
    signals = signals_of(*(signal(k, BUY, time_limit_s=40) for k in range(0, 4_900, 100)))
    trades = run_compiled(quotes, signals, Costs(latency_ms=500))

    for drawn in random_holdings(quotes, trades, Costs(latency_ms=500), seed=3):
        assert len(drawn) >= len(trades) - 1  # the end of the recording may cut the last
        assert drawn.exit_index.sum() - drawn.entry_index.sum() == pytest.approx(
            trades.exit_index.sum() - trades.entry_index.sum(), rel=0.05
        )
    every = always_in(quotes, trades, Costs(latency_ms=500))
    assert performance(quotes, every)["exposure"] > 0.9
