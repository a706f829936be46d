"""The result of an allocation, for people: its verdict first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trademl.cli.output import check_lines


def allocation_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what an allocation earned beside equal weights, what the gate said, and its limits."""
    metrics, gate = result["allocation"], result["gate"]
    ours, equal, between = metrics["model"], metrics["equal_weights"], metrics["excess_interval"]
    told = "too few quarters" if between is None else f"{between[0]:+.2%} to {between[1]:+.2%}"
    by_cost = ", ".join(f"{v:+.2%} at {f}" for f, v in metrics["annual_return_by_cost"].items())
    figures = [
        f"  {name}: {f['annual_return']:+.2%} a year, volatility {f['volatility']:.1%}, Sharpe "
        f"{f['sharpe']:.2f}, deepest drawdown {f['max_drawdown']:.1%}"
        for name, f in ((ours, metrics["account"]), ("equal weights", equal))
    ]
    n_fits, newest = len(metrics["fits"]), metrics["fits"][-1]["model"]
    return [
        f"{gate['headline']}: a quarter earned {metrics['excess_per_quarter']:+.2%} beside equal "
        f"weights ({told} at 95 %, {metrics['independent_quarters']} independent quarters)",
        *figures,
        f"  by cost: {by_cost}; {metrics['turnover_per_rebalance']:.0%} of the account traded at a "
        f"rebalance, fees {metrics['fees']:.2f}, slippage and spread {metrics['slippage']:.2f}",
        f"gate: {gate['verdict']}",
        *check_lines(gate),
        *(f"  {limit}" for limit in metrics["limits"]),
        f"models: {n_fits}, the newest {newest} (trademl models card {newest})",
        f"backtest: {result['backtest']['id']}, {result['backtest']['n_trades']} round trips",
        f"report: {result['report']['id']}",
        f"ledger: {result['ledger']['id']}",
    ]
