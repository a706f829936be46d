"""One backtest: every engine on the same signals, compared, beside an always-in baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.bar_engine import BARS_ENGINE, Engine, trader_on
from trademl.backtest.benchmarks import beside, buy_and_hold, mean_of, random_entries
from trademl.backtest.compiled import NO_LIMITS, run_compiled
from trademl.backtest.figures import figures
from trademl.backtest.gaps import before_gap
from trademl.backtest.limits import Limits
from trademl.backtest.parity import check_parity
from trademl.backtest.settings import BacktestConfig, realism
from trademl.backtest.signals import Signals
from trademl.backtest.sizing import sized
from trademl.backtest.statistics import equity_curve, performance
from trademl.backtest.trades import Trades
from trademl.errors import ConfigError, DataError
from trademl.market.adjustments import payments
from trademl.market.bars import Bars
from trademl.market.carry import Carry
from trademl.market.costs import Costs
from trademl.market.friction import with_volatility
from trademl.market.quotes import Quotes
from trademl.ports import Progress, Silent

LADDER = (1, 2, 3)
DEFAULT = BacktestConfig(reject_share=0.0)


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """What a backtest found.

    Parameters
    ----------
    trades : Trades
        The trades, on which all engines agreed.
    equity_ts_ns, equity : ndarray of shape (E,)
        The equity curve: UTC nanoseconds, and quote currency.
    metrics : dict
        `performance` of the trades with the threshold, the signals counted, ``decided_ns``: when
        the first and the last of them was decided, the ``engines`` that agreed, under ``baseline``
        the performance of taking signals whatever their score, under ``figures`` those of
        `trademl.backtest.figures`, under ``benchmarks`` the same of what else could have been
        done, under ``cost_ladder`` the profit at higher costs, under ``realism`` what was real, and
        under ``stopped`` what ended it early, or None; safe for JSON.
    """

    trades: Trades
    equity_ts_ns: NDArray[np.int64]
    equity: NDArray[np.float64]
    metrics: dict[str, Any]


def backtest(
    quotes: Quotes,
    signals: Signals,
    costs: Costs,
    *,
    threshold: float,
    engines: Sequence[str] = ("compiled", "backtrader"),
    every_s: float = 60,
    config: BacktestConfig = DEFAULT,
    carry: Carry | None = None,
    bars: Bars | None = None,
    seed: int = 7,
    progress: Progress | None = None,
) -> BacktestResult:
    """Trade the signals at or above a threshold in every engine, and return what they agree on.

    Parameters
    ----------
    quotes : Quotes
        The span to trade, P quotes.
    signals : Signals
        Every candidate entry of the span with its score; the baseline takes them all. Sizes come
        from ``config``.
    costs : Costs
        What trading costs.
    threshold : float
        Lowest score that is traded, unless signals carry their own.
    engines : sequence of str
        Names of `ENGINES`; the first one's trades are returned.
    every_s : float
        Step of the equity curve, in seconds.
    config : BacktestConfig
        Capital, sizes, limits and rejected orders.
    carry : Carry, optional
        What holding earns; the financing of ``costs`` where left out.
    bars : Bars, optional
        What signals are traded on where ``quotes`` are closes of bars: by the engine of bars, and
        no other.
    seed : int
        Decides which orders are rejected, random entries and resamples.

    Raises
    ------
    ConfigError
        If an engine is unknown, none is named, or its library is not installed.
    DataError
        If the signals cannot be traded on the recording, or no quote shows any size.
    ParityError
        If two engines differ; the message names the first trade that does.
    """
    progress, names, trade = progress or Silent(), tuple(engines), trader_on(bars)
    if bars is not None:
        names, chosen = (BARS_ENGINE,), {BARS_ENGINE: trade}
    else:
        chosen = _choose(names)
    refuse_no_liquidity(quotes, costs)
    quotes, stopped = before_gap(quotes, config)
    signals = signals.take(signals.orders.quote_index < len(quotes))
    quotes = with_volatility(quotes, costs)
    carry = payments(quotes, costs) if carry is None else carry
    limits = config.limits(seed)
    every = sized(quotes, signals, costs, config)
    flagged = every.flagged(threshold)
    made = [
        _run(name, chosen[name], quotes, flagged, costs, limits, carry, progress) for name in names
    ]
    for (name, one), (other_name, other) in pairwise(zip(names, made, strict=True)):
        check_parity(one, other, names=(name, other_name))
    baseline = _run("always-in baseline", trade, quotes, every, costs, limits, carry, progress)
    equity_ts_ns, equity = equity_curve(quotes, made[0], every_s, costs)
    draws = random_entries(
        quotes, every, made[0], costs, limits=limits, carry=carry, seed=seed, trade=trade
    )
    holding = buy_and_hold(quotes, costs, config.units, carry=carry)
    metrics = {
        **performance(quotes, made[0], costs),
        "stopped": stopped,
        "threshold": float(threshold) if signals.threshold is None else None,
        "n_signals": len(signals),
        "decided_ns": _decided_ns(quotes, signals),
        "n_flagged": len(flagged),
        "engines": list(names),
        "baseline": performance(quotes, baseline, costs),
        "figures": figures(quotes, made[0], equity_ts_ns, equity, costs, config, seed=seed),
        "benchmarks": {
            "always_in": beside(quotes, baseline, costs, config, every_s),
            "buy_and_hold": beside(quotes, holding, costs, config, every_s),
            "random_entry": mean_of([beside(quotes, d, costs, config, every_s) for d in draws]),
        },
        "cost_ladder": cost_ladder(quotes, flagged, costs, limits=limits, carry=carry, trade=trade),
        "realism": realism(costs, config, quotes),
    }
    return BacktestResult(made[0], equity_ts_ns, equity, metrics)


run_backtest = backtest  # as `trademl.run_backtest`: there, ``backtest`` is a folder


def _decided_ns(quotes: Quotes, signals: Signals) -> list[int] | None:
    """Return when the first and the last signal were decided, UTC nanoseconds."""
    at = signals.orders.quote_index
    return quotes.ts_event[[at[0], at[-1]]].tolist() if len(at) else None


def cost_ladder(
    quotes: Quotes,
    signals: Signals,
    costs: Costs,
    *,
    limits: Limits = NO_LIMITS,
    carry: Carry | None = None,
    trade: Engine = run_compiled,
) -> dict[str, float]:
    """Return the net profit at once, twice and three times the costs, spread included."""
    ladder = {}
    for factor in LADDER:
        dearer = costs.times(factor)
        held = carry if factor == 1 else None
        ladder[f"{factor}x"] = float(
            trade(quotes, signals, dearer, limits=limits, carry=held).pnl.sum()
        )
    return ladder


def refuse_no_liquidity(quotes: Quotes, costs: Costs) -> None:
    """Raise DataError where a side shows no size on any quote, so that nothing could fill."""
    if not costs.partial_fills or quotes.bid_size is None or quotes.ask_size is None:
        return
    for name, size in (("bid", quotes.bid_size), ("ask", quotes.ask_size)):
        if len(size) and not (size[quotes.is_executable] > 0).any():
            raise DataError(
                f"no executable quote shows any size at the {name}: nothing could be traded; give "
                "sizes, or set costs.partial_fills to false"
            )


def _choose(names: tuple[str, ...]) -> dict[str, Engine]:
    for name in names:
        if name not in ENGINES:
            raise ConfigError(f"no engine is called {name!r}: choose from {', '.join(ENGINES)}")
    if not names:
        raise ConfigError(f"no engine is named: choose from {', '.join(ENGINES)}")
    return {name: ENGINES[name]() for name in names}


def _run(
    name: str,
    engine: Engine,
    quotes: Quotes,
    signals: Signals,
    costs: Costs,
    limits: Limits,
    carry: Carry,
    progress: Progress,
) -> Trades:
    progress.step(f"backtest: {name}", f"{len(signals)} signals on {len(quotes)} quotes")
    trades = engine(quotes, signals, costs, limits=limits, carry=carry)
    progress.done(f"{len(trades)} trades, net {trades.pnl.sum():.2f}")
    return trades


def _load_backtrader() -> Engine:
    try:
        from trademl.backtest.backtrader_engine import run_backtrader
    except ImportError as error:
        raise ConfigError(
            "engine 'backtrader' needs backtrader: pip install 'trademl[backtest]', "
            "or leave it out of the engines"
        ) from error
    return run_backtrader


ENGINES: dict[str, Callable[[], Engine]] = {
    "compiled": lambda: run_compiled,
    "backtrader": _load_backtrader,
}
