"""A sweep's rules share orders, and each comes to what it comes to alone."""

from __future__ import annotations

import numpy as np
import pytest

from market_cases import random_walk
from trademl.backtest.limits import Limits
from trademl.backtest.score_rule import STRETCH, ScoreRule, sweep_scores, trade_scores
from trademl.market.costs import Costs
from trademl.market.orders import Side

N = 2 * STRETCH + 1_000  # so that positions cross from one stretch into the next
COSTS = Costs(fee_bps=0.5, slippage=0.1, latency_ms=700)
RULES = [
    ScoreRule(threshold, barrier, 2 * barrier, limit_s, side, rest_quotes=rest)
    for threshold in (0.3, 0.9, 0.999, 2.0)
    for barrier, limit_s in ((2.0, 300), (40.0, 1e6))
    for side, rest in ((Side.BUY, 0), (Side.SELL, 3))
]


@pytest.fixture(scope="module")
def market():
    return random_walk(N, seed=5), np.random.default_rng(6).random(N)


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(daily_loss=9.0, drawdown=60.0, max_units=0.5, reject_share=0.2)]
)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_each_rule_comes_to_what_it_comes_to_alone(market, limits, n_threads):
    quotes, score = market

    swept = sweep_scores(quotes, score, RULES, COSTS, limits=limits, n_threads=n_threads)

    for row, rule in enumerate(RULES):
        alone = trade_scores(quotes, score, rule, COSTS, limits=limits)
        sums = np.cumsum(np.append(0.0, alone.pnl))
        depth = (np.maximum.accumulate(sums) - sums).max()
        assert swept.n_trades[row] == len(alone)
        assert swept.net_pnl[row] == pytest.approx(alone.pnl.sum())
        assert swept.max_drawdown[row] == pytest.approx(depth)
        hit_rate = (alone.pnl > 0).mean() if len(alone) else np.nan
        assert swept.hit_rate[row] == pytest.approx(hit_rate, nan_ok=True)


def test_rules_of_this_test_trade_or_never_do(market):
    quotes, score = market
    n_trades = sweep_scores(quotes, score, RULES, COSTS).n_trades

    assert n_trades.max() > 100
    assert n_trades.min() == 0


def test_no_rules_are_an_empty_sweep(market):
    assert len(sweep_scores(*market, [], COSTS).net_pnl) == 0
