"""What an allocation was worth: figures with intervals, what it cost, and what else was possible.

Shape letters: T rows, A assets, R rebalances.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trademl.backtest.allocation import Allocation, AllocationRules, Weights, run_allocation
from trademl.backtest.compiled import NO_LIMITS
from trademl.backtest.figures import figures_of, returns_of
from trademl.backtest.limits import Limits
from trademl.backtest.panel import Panel
from trademl.backtest.run import LADDER
from trademl.market.costs import Costs
from trademl.stats.resampling import intervals


def allocation_figures(
    prices: Panel,
    weights: Weights,
    costs: Costs,
    *,
    rules: AllocationRules = AllocationRules(),  # noqa: B008 - frozen
    limits: Limits = NO_LIMITS,
    seed: int = 7,
) -> dict[str, Any]:
    """Run an allocation and return its figures, safe for JSON.

    Returns
    -------
    dict
        ``net_pnl``, ``fees``, ``slippage`` (half the spread included), ``mean_turnover`` of a
        rebalance, ``n_fills``, ``waiting``, ``halted``, ``rejected``; under ``figures`` each of
        `figures_of` with ``value``, ``low`` and ``high`` (95 %, block bootstrap); under
        ``cost_ladder`` the profit at higher costs; under ``equal_weight`` the profit of holding
        every asset alike from the first rebalance on. Returns are shares of the first capital.
    """
    found = run_allocation(prices, weights, costs, rules=rules, limits=limits)
    told = found.rebalances(costs.multiplier)
    turnover = told["turnover"][np.isfinite(told["turnover"])]
    dearer = {
        f"{factor}x": _net(
            run_allocation(prices, weights, costs.times(factor), rules=rules, limits=limits), rules
        )
        for factor in LADDER
    }
    return {
        "net_pnl": _net(found, rules),
        "fees": float(found.fee.sum()),
        "slippage": float(told["slippage"].sum()),
        "mean_turnover": float(turnover.mean()) if len(turnover) else None,
        "n_rebalances": len(weights),
        "n_fills": len(found),
        "waiting": int(found.waiting),
        "halted": int(found.halted),
        "rejected": int(found.rejected),
        "figures": _figures(found, rules, seed),
        "cost_ladder": dearer,
        "equal_weight": _net(_equal_weight(prices, weights, costs, rules), rules),
    }


def _net(found: Allocation, rules: AllocationRules) -> float:
    return float(found.equity[-1] - rules.capital) if len(found.equity) else 0.0


def _figures(found: Allocation, rules: AllocationRules, seed: int) -> dict[str, Any]:
    returns = returns_of(found.ts_ns, found.equity, rules.capital)
    values = figures_of(returns.value_T, returns.per_year)
    block = max(1, math.ceil(len(returns.value_T) ** (1 / 3)))
    bounds: dict[str, Any] = {}
    if len(returns.value_T):
        bounds = intervals(
            returns.value_T,
            lambda value_T: figures_of(value_T, returns.per_year),
            block_length=block,
            seed=seed,
        )
    return {
        name: dict(zip(("value", "low", "high"), (value, *(bounds.get(name) or (None, None))),
                       strict=True))
        for name, value in values.items()
    }  # fmt: skip


def _equal_weight(
    prices: Panel, weights: Weights, costs: Costs, rules: AllocationRules
) -> Allocation:
    each = np.full((1, prices.n_assets), rules.gross_limit / prices.n_assets)
    first = weights.ts_ns[:1]
    return run_allocation(prices, Weights(first, each[: len(first)]), costs, rules=rules)
