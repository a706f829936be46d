"""Figures of an allocation, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trademl.backtest.allocation import AllocationRules, Weights
from trademl.backtest.allocation_report import allocation_figures
from trademl.backtest.panel import Panel
from trademl.market.costs import Costs

HOUR = 3600 * 10**9
MID = np.array([[100.0, 110.0, 120.0], [100.0, 100.0, 100.0]])
PRICES = Panel(np.arange(3) * HOUR, MID - 1, MID + 1, np.zeros((2, 3)), np.zeros((2, 3)))
FIRST = Weights(np.array([0]), np.array([[1.0, 0.0]]))


def figures(weights=FIRST, costs=Costs(fee_per_unit=0.5)):  # noqa: B008
    return allocation_figures(PRICES, weights, costs, rules=AllocationRules(1000.0))


def test_profit_costs_and_turnover_are_those_of_the_fills():
    # 10 units at 101, left at a bid of 119: 180 less a fee of 5; 10 worse than the mid
    told = figures()
    assert (told["net_pnl"], told["fees"], told["slippage"]) == (175.0, 5.0, 10.0)
    assert told["mean_turnover"] == pytest.approx(1.01)


def test_dearer_costs_earn_less():
    # at twice: 10 units at 102, bid 118, fee 10
    assert figures()["cost_ladder"] == {"1x": 175.0, "2x": 150.0, "3x": 125.0}


def test_equal_weights_stand_beside():
    # 5 units of each: (119 - 101) 5 + (99 - 101) 5, less fees of 5
    assert figures()["equal_weight"] == 75.0


def test_figures_are_safe_for_json_without_any_rebalance():
    nothing = Weights(np.empty(0, np.int64), np.empty((0, 2)))
    told = json.loads(json.dumps(figures(nothing), allow_nan=False))
    assert (told["net_pnl"], told["n_fills"], told["mean_turnover"]) == (0.0, 0, None)
