"""Allocate among several assets by quarters, and say what it was worth beside equal weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.allocation import Allocation, Weights
from trademl.backtest.panel import Panel
from trademl.backtest.quarterly import DAY_NS, Fit, Walk, executable, hold, ridge, walk_quarters
from trademl.backtest.quarterly_settings import QuarterlyConfig
from trademl.errors import ConfigError
from trademl.ingest.asset_files import of_symbols, read_assets, read_factors
from trademl.market.bars import Bars
from trademl.market.costs import Costs
from trademl.market.quotes import NS_PER_S
from trademl.market.snapshots import Factor, Snapshots, align
from trademl.pipeline.strategy import Strategy
from trademl.ports import Progress, Silent
from trademl.stats.resampling import intervals
from trademl.train.parallel.distribution import parse_distribution
from trademl.train.selection import NO_EDGE

YEAR_NS = 365.25 * 86_400 * NS_PER_S
CONFIDENCE = 0.95
FACTORS = (1.0, 2.0, 3.0)
EDGE = "edge after costs"


@dataclass(frozen=True)
class AllocationReport:
    """What a walk decided and earned.

    Parameters
    ----------
    symbols : tuple of str
    walk : Walk
    prices : Panel
        What could be traded, from the first decision on.
    model, equal : Allocation
        The account under the model's weights, and under equal ones.
    metrics : dict
        As JSON can hold them; ``verdict`` first.
    """

    symbols: tuple[str, ...]
    walk: Walk
    prices: Panel
    model: Allocation
    equal: Allocation
    metrics: dict[str, Any]

    @property
    def period_ns(self) -> int:
        """From a decision to the end of what is forecast."""
        return int(self.metrics["period_days"]) * DAY_NS

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why its models are refused; empty where there is an edge."""
        if self.metrics["verdict"] == EDGE:
            return ()
        between = self.metrics["excess_interval"]
        told = (
            "too few for an interval"
            if between is None
            else "95 % {:+.2%} to {:+.2%}".format(*between)
        )
        return (
            f"a quarter earned {self.metrics['excess_per_quarter']:+.2%} beside equal weights "
            f"({told}), the account {self.metrics['account']['annual_return']:+.2%} a year",
        )


def allocate(
    strategy: Strategy,
    *,
    environment: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> AllocationReport:
    """Walk a strategy's ``[allocation]`` forward by quarters and trade its weights.

    Parameters
    ----------
    environment : mapping, optional
        Of the processes that train a network.

    Raises
    ------
    ConfigError
        If there are no bars to allocate among.
    DataError
        If a file cannot be used, or the recording is too short.
    """
    progress, config = progress or Silent(), strategy.allocation
    progress.step("read", "bars")
    snapshots = read_snapshots(config)
    progress.done(f"{len(snapshots.symbols)} assets, {len(snapshots.ts_T):,} snapshots")
    progress.step("walk", config.model)
    fit: Fit = ridge
    refit = 1
    if config.model == "network":
        from trademl.backtest.quarterly_network import network_fit

        fit, refit = (
            network_fit(
                strategy.network,
                strategy.training,
                parse_distribution(strategy.distribution),
                step_days=config.step_days,
                seed=strategy.seed,
                environment=environment or {},
            ),
            config.refit_quarters,
        )
    walk = walk_quarters(
        snapshots, config, strategy.costs, fit=fit, refit_quarters=refit, progress=progress
    )
    progress.done(f"{len(walk.weights)} decisions")
    prices = executable(snapshots, int(walk.weights.ts_ns[0]))
    model = hold(prices, walk.weights, strategy.costs, config)
    equal = hold(prices, walk.equal, strategy.costs, config)
    metrics = _metrics(strategy, snapshots, walk, prices, model, equal)
    return AllocationReport(snapshots.symbols, walk, prices, model, equal, metrics)


def read_snapshots(config: QuarterlyConfig) -> Snapshots:
    """Read the assets of a strategy and put them on one clock."""
    return align(*read_market(config))


def read_market(config: QuarterlyConfig) -> tuple[dict[str, Bars], dict[str, list[Factor]]]:
    """Read the bars of a strategy's assets, and the splits and dividends of those that have any.

    Raises
    ------
    ConfigError
        If there are no bars to allocate among.
    """
    if not config.bars:
        raise ConfigError(
            "allocation.bars is empty, expected files of hourly bars: name one or more in the "
            "strategy file's [allocation]"
        )
    assets: dict[str, Bars] = {}
    for file in config.bars:
        assets |= read_assets(Path(file), spread_bps=config.spread_bps)
    if unknown := sorted(set(config.without) - assets.keys()):
        raise ConfigError(
            f"allocation.without names {', '.join(unknown)}; the files hold {', '.join(assets)}"
        )
    assets = {s: _within(b, config) for s, b in assets.items() if s not in config.without}
    assets = {symbol: bars for symbol, bars in assets.items() if len(bars)}
    if not assets:
        raise ConfigError("allocation.since and .until leave no bars: widen the span")
    factors = read_factors(Path(config.factors)) if config.factors else {}
    return assets, of_symbols(assets, factors)


def _within(bars: Bars, config: QuarterlyConfig) -> Bars:
    edges = [
        int(np.datetime64(day, "ns").astype(np.int64)) if day else default
        for day, default in ((config.since, -(2**62)), (config.until, 2**62))
    ]
    first, last = np.searchsorted(bars.ts_open, edges)
    return bars.slice(int(first), int(last))


def _metrics(
    strategy: Strategy,
    snapshots: Snapshots,
    walk: Walk,
    prices: Panel,
    model: Allocation,
    equal: Allocation,
) -> dict[str, Any]:
    ours, theirs = quarter_returns(model, walk.weights), quarter_returns(equal, walk.weights)
    excess = mean_interval(ours - theirs, strategy.seed)
    figures = {"account": account_figures(model), "equal_weights": account_figures(equal)}
    has_edge = excess is not None and excess[0] > 0 and figures["account"]["annual_return"] > 0
    rebalances = model.rebalances()
    return {
        "verdict": EDGE if has_edge else NO_EDGE,
        "model": strategy.allocation.model,
        "assets": list(snapshots.symbols),
        "decisions": len(walk.weights),
        "independent_quarters": len(ours),
        "period_days": strategy.allocation.period_days,
        "returns": ours.tolist(),
        "equal_returns": theirs.tolist(),
        **figures,
        "excess_per_quarter": float((ours - theirs).mean()) if len(ours) else 0.0,
        "excess_interval": excess,
        "annual_return_by_cost": _by_cost(strategy, prices, walk.weights),
        "turnover_per_rebalance": float(np.nanmean(rebalances["turnover"])),
        "fees": float(rebalances["fees"].sum()),
        "slippage": float(rebalances["slippage"].sum()),
        "forecast_correlation": _correlation(walk.forecast_RA, walk.realised_RA),
        "mean_validation_gain": float(np.nanmean(walk.gain_R)),
        "limits": [
            f"Survivorship: {', '.join(snapshots.symbols)} are those that the files hold; tickers "
            "that were delisted are missing, and the ones that survived look better than what "
            "could be bought.",
            f"{len(ours)} quarters are few: the interval is wide, and quarters of one market cycle "
            "are alike.",
        ],
    }


def mean_interval(value_R: NDArray[np.float64], seed: int) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of quarters, None where they are too few."""
    found = intervals(
        value_R,
        lambda drawn: {"mean": float(drawn.mean())},
        block_length=1,
        confidence=CONFIDENCE,
        seed=seed,
    )
    return found["mean"]


def quarter_returns(account: Allocation, weights: Weights) -> NDArray[np.float64]:
    """Return the account's return from each decision to the next; the last one is left out."""
    at = np.searchsorted(account.ts_ns, weights.ts_ns, side="right") - 1
    equity = account.equity[at]
    return np.asarray(equity[1:] / equity[:-1] - 1)


def account_figures(account: Allocation) -> dict[str, float]:
    """Return annual return, volatility and Sharpe ratio of weekly returns, and deepest drawdown."""
    equity = account.equity
    years = float(account.ts_ns[-1] - account.ts_ns[0]) / YEAR_NS
    week = account.ts_ns // (7 * 86_400 * NS_PER_S)
    weekly = equity[np.flatnonzero(np.diff(week, append=week[-1] + 1))]
    returns = np.diff(np.log(weekly))
    volatility = float(returns.std(ddof=1) * np.sqrt(365.25 / 7)) if len(returns) > 1 else 0.0
    annual = float((equity[-1] / equity[0]) ** (1 / years) - 1) if equity[-1] > 0 else -1.0
    return {
        "annual_return": annual,
        "volatility": volatility,
        "sharpe": float(returns.mean() * 365.25 / 7 / volatility) if volatility > 0 else 0.0,
        "max_drawdown": float((equity / np.maximum.accumulate(equity) - 1).min()),
        "final_equity": float(equity[-1]),
    }


def _by_cost(strategy: Strategy, prices: Panel, weights: Weights) -> dict[str, float]:
    def earned(costs: Costs) -> float:
        account = hold(prices, weights, costs, strategy.allocation)
        return account_figures(account)["annual_return"]

    return {f"{factor:g}x": earned(strategy.costs.times(factor)) for factor in FACTORS}


def _correlation(
    forecast_RA: NDArray[np.float64], realised_RA: NDArray[np.float64]
) -> float | None:
    both = np.isfinite(forecast_RA) & np.isfinite(realised_RA)
    if both.sum() < 3 or forecast_RA[both].std() == 0:
        return None
    return float(np.corrcoef(forecast_RA[both], realised_RA[both])[0, 1])
