"""An allocation's fills as trades that add up to its account."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.backtest.allocation import AllocationRules, Weights, run_allocation
from trademl.backtest.allocation_gate import judge_quarters
from trademl.backtest.panel import Panel
from trademl.backtest.round_trips import round_trips
from trademl.market.costs import Costs
from trademl.train.gate import GateConfig

HOUR = 3_600_000_000_000
COSTS = Costs(fee_bps=2.0, slippage_spreads=0.1, latency_ms=50)


def panel(n=400, n_assets=3, seed=0):
    rng = np.random.default_rng(seed)
    mid = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (n_assets, n)), axis=1))
    mid[rng.random(mid.shape) < 0.2] = np.nan
    nothing = np.zeros(mid.shape)
    return Panel(np.arange(1, n + 1) * HOUR, mid * 0.9995, mid * 1.0005, nothing, nothing)


def traded(seed=0, sold=False):
    rng, prices = np.random.default_rng(seed), panel(seed=seed)
    weight = rng.random((12, 3)) / 3 - (0.15 if sold else 0)
    weights = Weights(prices.ts_event[20::30][:12].copy(), weight)
    rules = AllocationRules(long_only=not sold)
    found = run_allocation(prices, weights, COSTS, rules=rules)
    return found, round_trips(found, prices, weights, COSTS, ["a", "b", "c"]), weights, rules


@pytest.mark.parametrize("sold", [False, True])
def test_trades_add_up_to_the_account(sold):
    found, trades, _, rules = traded(sold=sold)

    assert sum(t["pnl"] for t in trades) == pytest.approx(found.equity[-1] - rules.capital)
    assert sum(t["fees"] for t in trades) == pytest.approx(found.fee.sum())
    assert {t["side"] for t in trades} == ({"buy", "sell"} if sold else {"buy"})


def test_what_was_bought_first_is_sold_first():
    found, trades, weights, _ = traded()
    for asset in range(3):
        own = [t for t in trades if t["order_id"] % 3 == asset]
        opened = [t["opened_at_ns"] for t in own]
        assert opened == sorted(opened)
        closed = [t["size"] for t in own if t["exit_reason"] == "rebalance"]
        sold = found.units[(found.fill_asset == asset) & (found.units < 0)]
        assert sum(closed) == pytest.approx(-sold.sum())
    assert all(t["decided_at_ns"] < t["opened_at_ns"] < t["closed_at_ns"] for t in trades)
    assert {t["decided_at_ns"] for t in trades} <= set(weights.ts_ns.tolist())


def test_what_is_held_at_the_end_is_closed_at_its_touch():
    _, trades, _, _ = traded()
    held = [t for t in trades if t["exit_reason"] == "end"]

    prices = panel()
    for trade in held:
        bid = prices.bid["abc".index(trade["instrument"])]
        assert trade["exit_price"] == bid[np.isfinite(bid)][-1]
    assert held


COST_LADDER = {"1x": 0.05, "2x": 0.03, "3x": 0.01}


def judged(excess_R, by_cost=COST_LADDER, n_tried=1):
    ours = np.asarray(excess_R) + 0.01
    equal = np.full(len(ours), 0.01)
    return judge_quarters(ours, equal, by_cost, GateConfig(), n_tried=n_tried, seed=1)


def test_a_steady_edge_is_promoted_and_the_same_of_many_tries_is_not():
    excess = np.random.default_rng(0).normal(0.006, 0.02, 48)

    assert judged(excess).verdict == "promote"
    assert judged(excess, n_tried=10_000).verdict == "hold"


def test_quarters_that_lose_beside_equal_weights_are_rejected():
    found = judged(-np.abs(np.random.default_rng(0).normal(0, 0.02, 48)))

    assert found.verdict == "reject"
    assert not found.has_edge
    assert "beside equal weights: not above 0" in "; ".join(found.reasons)


def test_a_few_good_quarters_are_held():
    assert judged(np.full(8, 0.02) + np.arange(8) * 1e-4).verdict == "hold"


def test_an_account_that_loses_after_costs_is_rejected():
    assert judged(np.full(48, 0.02), {"1x": -0.01, "2x": -0.02, "3x": -0.03}).verdict == "reject"
