"""A strategy that a user wrote as a Python file, traded over a recording.

The file holds a function ``decide(now)``, see `trademl.backtest.callback`, or one subclass of
``backtrader.Strategy``.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from trademl.backtest.benchmarks import always_in, beside, buy_and_hold, mean_of, random_holdings
from trademl.backtest.callback import run_callback
from trademl.backtest.figures import figures
from trademl.backtest.gaps import before_gap
from trademl.backtest.run import LADDER, BacktestResult, refuse_no_liquidity
from trademl.backtest.settings import BacktestConfig, realism
from trademl.backtest.statistics import equity_curve, performance
from trademl.backtest.trades import Trades
from trademl.errors import ConfigError
from trademl.market.costs import Costs
from trademl.market.friction import with_volatility
from trademl.market.quotes import Quotes

EVERY_S = 60


def backtest_strategy(
    file: Path, quotes: Quotes, costs: Costs, config: BacktestConfig, *, seed: int = 7
) -> BacktestResult:
    """Trade a user's strategy, and return its trades and figures.

    Returns
    -------
    BacktestResult
        Where the strategy raised or the quotes have a gap, of what had ended; the metric
        ``stopped`` says what was wrong and where.

    Raises
    ------
    ConfigError
        If the file cannot be imported, or holds no strategy.
    DataError
        If no quote shows any size, or the strategy answers with something else than an order.
    """
    load_strategy(file)
    refuse_no_liquidity(quotes, costs)
    quotes, gap = before_gap(quotes, config)
    quotes, limits = with_volatility(quotes, costs), config.limits(seed)

    def trade(dearer: Costs) -> Trades:
        strategy = load_strategy(file)  # anew, so that no run sees what another left in it
        if not inspect.isclass(strategy):
            return run_callback(quotes, strategy, dearer, limits=limits)
        from trademl.backtest.backtrader_engine import run_strategy

        return run_strategy(quotes, strategy, dearer, limits=limits, cash=config.capital)

    made = trade(costs)
    ladder = {f: made if f == 1 else trade(costs.times(f)) for f in LADDER if not made.stopped}
    ts_ns, equity = equity_curve(quotes, made, costs=costs)
    holding = buy_and_hold(quotes, costs, config.units)
    chance = random_holdings(quotes, made, costs, seed=seed)
    metrics = {
        **performance(quotes, made, costs),
        "stopped": made.stopped or gap,
        "strategy": str(file),
        "cost_ladder": {f"{f}x": float(trades.pnl.sum()) for f, trades in ladder.items()},
        "figures": figures(quotes, made, ts_ns, equity, costs, config, seed=seed),
        "benchmarks": {
            "always_in": beside(quotes, always_in(quotes, made, costs), costs, config, EVERY_S),
            "buy_and_hold": beside(quotes, holding, costs, config, EVERY_S),
            "random_entry": mean_of([beside(quotes, d, costs, config, EVERY_S) for d in chance]),
        },
        "realism": realism(costs, config, quotes),
    }
    return BacktestResult(made, ts_ns, equity, metrics)


def load_strategy(file: Path) -> Any:
    """Return the function ``decide``, or the one backtrader strategy, of a Python file.

    Raises
    ------
    ConfigError
        If the file cannot be imported, or holds neither.
    """
    spec = importlib.util.spec_from_file_location(f"trademl_strategy_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{file}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # backtrader looks a strategy's module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code, before any work
        raise ConfigError(f"{file}: cannot be imported: {type(error).__name__}: {error}") from error
    if callable(decide := getattr(module, "decide", None)):
        return decide
    return _strategy_class(file, module)


def _strategy_class(file: Path, module: Any) -> type:
    from trademl.errors import require_extra

    require_extra("backtest")
    import backtrader as bt

    own = [
        found
        for found in vars(module).values()
        if inspect.isclass(found)
        and issubclass(found, bt.Strategy)
        and found.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise ConfigError(
            f"{file}: holds {len(own)} backtrader strategies and no function decide(now); expected "
            "one of either"
        )
    return own[0]
