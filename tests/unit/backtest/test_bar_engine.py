"""The engine of bars: fills as labels do, one position at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trademl.backtest.bar_engine import run_on_bars
from trademl.backtest.limits import Limits
from trademl.backtest.run import backtest
from trademl.backtest.signals import Signals
from trademl.ingest.bar_files import closes
from trademl.market.bars import Bars, settle_on_bars
from trademl.market.costs import Costs
from trademl.market.orders import Orders, Side

MINUTE_NS, N = 60_000_000_000, 400
COSTS = Costs(fee_per_unit=0.05, slippage_spreads=0.5)


@pytest.fixture(scope="module")
def bars():
    rng = np.random.default_rng(3)
    close = 1000 + 0.25 * np.cumsum(rng.integers(-3, 4, N))
    open_ = np.concatenate(([1000.0], close[:-1]))
    ts = 1_700_000_040_000_000_000 + MINUTE_NS * np.arange(N)
    high, low = np.maximum(open_, close) + 0.5, np.minimum(open_, close) - 0.5
    return Bars(ts, ts + MINUTE_NS, open_, high, low, close, np.full(N, 0.25))


@pytest.fixture(scope="module")
def signals():
    at = np.arange(0, N - 60)
    n = len(at)
    orders = Orders(
        at,
        np.full(n, Side.BUY, np.int8),
        np.full(n, 2.0),
        np.full(n, 2.0),
        np.full(n, 30 * MINUTE_NS),
    )
    return Signals(orders, at, np.random.default_rng(4).random(n))


def test_trades_are_the_labels_taken_in_turn(bars, signals):
    done = settle_on_bars(bars, signals.orders, COSTS).transactions
    trades = run_on_bars(bars, closes(bars), signals, COSTS, limits=Limits())
    taken, free_from = [], 0
    for s, decided in enumerate(signals.orders.quote_index):
        if decided >= free_from:
            taken.append(s)
            free_from = done.exit_index[s]
    assert trades.order_id.tolist() == taken
    np.testing.assert_allclose(trades.pnl, done.pnl[taken])
    assert trades.skipped_while_in_position == len(signals) - len(taken)


def test_dearer_costs_widen_the_spread_of_every_bar(bars, signals):
    twice = COSTS.times(2)
    found = run_on_bars(bars, closes(bars), signals, twice, limits=Limits())
    prices = (p - 0.125 for p in (bars.open, bars.high, bars.low, bars.close))
    wider = Bars(bars.ts_open, bars.ts_close, *prices, 2 * bars.spread)
    by_hand = replace(COSTS, fee_per_unit=0.1)  # slippage is half of a spread that is twice as wide
    expected = run_on_bars(wider, closes(wider), signals, by_hand, limits=Limits())
    np.testing.assert_allclose(found.pnl, expected.pnl)


def test_what_comes_after_an_exit_moves_no_trade(bars, signals):
    before = run_on_bars(bars, closes(bars), signals, COSTS, limits=Limits())
    later = np.arange(N) > 200
    prices = (np.where(later, p + 40, p) for p in (bars.open, bars.high, bars.low, bars.close))
    tampered = Bars(bars.ts_open, bars.ts_close, *prices, bars.spread)
    after = run_on_bars(tampered, closes(tampered), signals, COSTS, limits=Limits())
    n = int((before.exit_index <= 200).sum())
    assert n > 5
    np.testing.assert_array_equal(after.pnl[:n], before.pnl[:n])


def test_limits_on_risk_end_trading(bars, signals):
    trades = run_on_bars(bars, closes(bars), signals, COSTS, limits=Limits(drawdown=1.0))
    assert trades.halted > 0
    assert trades.pnl[:-1].sum() > -1.0


def test_a_backtest_on_bars_has_its_benchmarks_beside_it(bars, signals):
    found = backtest(closes(bars), signals, COSTS, threshold=0.7, bars=bars)
    chosen = run_on_bars(bars, closes(bars), signals.flagged(0.7), COSTS, limits=Limits())
    assert found.metrics["engines"] == ["bars"]
    assert found.metrics["net_pnl"] == pytest.approx(chosen.pnl.sum())
    every = run_on_bars(bars, closes(bars), signals, COSTS, limits=Limits())
    assert found.metrics["baseline"]["net_pnl"] == pytest.approx(every.pnl.sum())
    ladder = found.metrics["cost_ladder"]
    assert ladder["1x"] > ladder["2x"] > ladder["3x"]
    assert found.metrics["benchmarks"]["random_entry"]["n_trades"] > 0
