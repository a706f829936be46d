"""One backtest: every engine on the same signals, compared, beside an always-in baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.compiled import run_compiled
from trademl.backtest.parity import check_parity
from trademl.backtest.signals import Signals
from trademl.backtest.statistics import equity_curve, performance
from trademl.backtest.trades import Trades
from trademl.errors import ConfigError
from trademl.market.costs import Costs
from trademl.market.quotes import Quotes
from trademl.ports import Progress, Silent

Engine = Callable[[Quotes, Signals, Costs], Trades]


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
        `performance` of the trades with the threshold, the signals counted, the ``engines`` that
        agreed, and under ``baseline`` the performance of taking signals whatever their score;
        safe for JSON.
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
    progress: Progress | None = None,
) -> BacktestResult:
    """Trade the signals at or above a threshold in every engine, and return what they agree on.

    Parameters
    ----------
    quotes : Quotes
        The span to trade, P quotes.
    signals : Signals
        Every candidate entry of the span with its score; the baseline takes them all.
    costs : Costs
        Fees of both sides, slippage and latency of market fills.
    threshold : float
        Lowest score that is traded.
    engines : sequence of str
        Names of `ENGINES`; the first one's trades are returned.
    every_s : float
        Step of the equity curve, in seconds.

    Raises
    ------
    ConfigError
        If an engine is unknown, none is named, or its library is not installed.
    DataError
        If the signals cannot be traded on the recording.
    ParityError
        If two engines differ; the message names the first trade that does.
    """
    progress, names = progress or Silent(), tuple(engines)
    chosen = _choose(names)
    flagged = signals.flagged(threshold)
    made = [_run(name, chosen[name], quotes, flagged, costs, progress) for name in names]
    for (name, one), (other_name, other) in pairwise(zip(names, made, strict=True)):
        check_parity(one, other, names=(name, other_name))
    baseline = _run("always-in baseline", run_compiled, quotes, signals, costs, progress)
    equity_ts_ns, equity = equity_curve(quotes, made[0], every_s)
    metrics = {
        **performance(quotes, made[0]),
        "threshold": float(threshold),
        "n_signals": len(signals),
        "n_flagged": len(flagged),
        "engines": list(names),
        "baseline": performance(quotes, baseline),
    }
    return BacktestResult(made[0], equity_ts_ns, equity, metrics)


def _choose(names: tuple[str, ...]) -> dict[str, Engine]:
    for name in names:
        if name not in ENGINES:
            raise ConfigError(f"no engine is called {name!r}: choose from {', '.join(ENGINES)}")
    if not names:
        raise ConfigError(f"no engine is named: choose from {', '.join(ENGINES)}")
    return {name: ENGINES[name]() for name in names}


def _run(
    name: str, engine: Engine, quotes: Quotes, signals: Signals, costs: Costs, progress: Progress
) -> Trades:
    progress.step(f"backtest: {name}", f"{len(signals)} signals on {len(quotes)} quotes")
    trades = engine(quotes, signals, costs)
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
