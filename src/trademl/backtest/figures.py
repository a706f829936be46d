"""The figures by which a backtest is judged, with intervals, and benchmarks beside them.

Returns are profits over fixed steps of time as a share of the capital, which is not compounded.
Ratios are annualised by the steps that a calendar year of the span's own pace holds. What
`empyrical` has is taken from it.

Shape letters: T returns, N trades.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.settings import BacktestConfig
from trademl.backtest.trades import Trades
from trademl.market.costs import Costs
from trademl.market.friction import SECONDS_PER_DAY
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.stats.resampling import intervals
from trademl.stats.sharpe import (
    deflated_sharpe_ratio,
    probabilistic_sharpe_ratio,
    sharpe_ratio,
)

SECONDS_PER_YEAR = 365.25 * SECONDS_PER_DAY
STEPS_S = (60, 300, 900, 3_600, 14_400, SECONDS_PER_DAY)
WANTED_RETURNS = 200


@dataclass(frozen=True, slots=True)
class Returns:
    """Profit of each step as a share of the capital.

    Parameters
    ----------
    value_T : ndarray of float64, shape (T,)
        In order of time; steps in which no quote came are left out.
    per_year : float
        Steps in a year at the pace of the span.
    step_s : float
        Length of a step.
    """

    value_T: NDArray[np.float64]
    per_year: float
    step_s: float


def returns_of(ts_ns: NDArray[np.int64], equity: NDArray[np.float64], capital: float) -> Returns:
    """Return the returns of an equity curve: by days, or by shorter steps of a shorter span."""
    if len(ts_ns) < 2:
        return Returns(np.empty(0), math.nan, STEPS_S[-1])
    span_s = float(ts_ns[-1] - ts_ns[0]) / NS_PER_S
    step_s = max((s for s in STEPS_S if span_s / s >= WANTED_RETURNS), default=STEPS_S[0])
    step = (ts_ns - ts_ns[0]) // round(step_s * NS_PER_S)
    last = np.append(np.flatnonzero(np.diff(step)), len(step) - 1)
    value_T = np.diff(equity[last], prepend=equity[0]) / capital
    return Returns(value_T, len(value_T) / span_s * SECONDS_PER_YEAR, step_s)


def figures_of(value_T: NDArray[np.float64], per_year: float) -> dict[str, float | None]:
    """Return the figures of a series of returns; None where one is undefined.

    ``max_drawdown`` is a share of the capital, at or below 0; ``max_drawdown_steps`` the longest
    stretch of returns below a peak.
    """
    import empyrical

    if len(value_T) < 2 or not math.isfinite(per_year):
        return dict.fromkeys(_NAMES)
    depth, length = _drawdown(value_T)
    yearly = float(value_T.mean()) * per_year
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = {
            "annual_return": yearly,
            "annual_volatility": empyrical.annual_volatility(value_T, annualization=per_year),
            "sharpe": empyrical.sharpe_ratio(value_T, annualization=per_year),
            "sortino": empyrical.sortino_ratio(value_T, annualization=per_year),
            "calmar": yearly / -depth if depth < 0 else None,
            "max_drawdown": depth,
            "max_drawdown_steps": float(length),
        }
    return {n: None if v is None or not math.isfinite(v) else float(v) for n, v in found.items()}


_NAMES = (
    "annual_return",
    "annual_volatility",
    "sharpe",
    "sortino",
    "calmar",
    "max_drawdown",
    "max_drawdown_steps",
)


def _drawdown(value_T: NDArray[np.float64]) -> tuple[float, int]:
    worth = np.concatenate(([0.0], np.cumsum(value_T)))
    below = worth - np.maximum.accumulate(worth)
    k = np.arange(len(worth))
    at_peak = np.maximum.accumulate(np.where(below < 0, 0, k))
    return float(below.min()), int((k - at_peak).max())


def figures(
    quotes: Quotes,
    trades: Trades,
    equity_ts_ns: NDArray[np.int64],
    equity: NDArray[np.float64],
    costs: Costs,
    config: BacktestConfig,
    *,
    seed: int,
) -> dict[str, Any]:
    """Return every figure of a backtest with its interval, safe for JSON.

    Returns
    -------
    dict
        ``value``, ``low`` and ``high`` (95 %, block bootstrap over returns, and over trades for
        those of trades) for each figure; beside them the probabilistic and the deflated Sharpe
        ratio, turnover, capacity and the step of the returns.
    """
    returns = returns_of(equity_ts_ns, equity, config.capital)
    by_step = _with_intervals(returns.value_T, lambda v: figures_of(v, returns.per_year), seed=seed)
    by_trade = _with_intervals(trades.pnl, _figures_of_trades, seed=seed)
    found = sharpe_ratio(returns.value_T)
    psr = None if found is None else probabilistic_sharpe_ratio(found)
    dsr = None if found is None else deflated_sharpe_ratio(found, config.n_trials)
    return {
        **by_step,
        **by_trade,
        "probabilistic_sharpe": psr,
        "deflated_sharpe": dsr,
        "n_trials": config.n_trials,
        "turnover_per_year": _turnover(quotes, trades, costs, config),
        "capacity_units": capacity(quotes, trades),
        "returns_step_s": returns.step_s,
        "n_returns": len(returns.value_T),
    }


def _figures_of_trades(pnl_N: NDArray[np.float64]) -> dict[str, float | None]:
    if not len(pnl_N):
        return dict.fromkeys(("average_trade", "hit_rate", "profit_factor"))
    lost = float(-pnl_N[pnl_N < 0].sum())
    return {
        "average_trade": float(pnl_N.mean()),
        "hit_rate": float((pnl_N > 0).mean()),
        "profit_factor": float(pnl_N[pnl_N > 0].sum()) / lost if lost else None,
    }


def _with_intervals(values: NDArray[np.float64], of: Any, *, seed: int) -> dict[str, Any]:
    block = max(1, math.ceil(len(values) ** (1 / 3)))
    bounds = intervals(values, of, block_length=block, seed=seed) if len(values) else {}
    told: dict[str, Any] = {}
    for name, value in of(values).items():
        low, high = bounds.get(name) or (None, None)
        told[name] = {"value": value, "low": low, "high": high}
    return told


def _turnover(quotes: Quotes, trades: Trades, costs: Costs, config: BacktestConfig) -> float | None:
    """Return the value bought and sold in a year as a multiple of the capital."""
    span_s = float(quotes.ts_event[-1] - quotes.ts_event[0]) / NS_PER_S if len(quotes) else 0.0
    if not span_s:
        return None
    value = float((trades.size * (trades.entry_price + trades.exit_price)).sum())
    return value * costs.multiplier / config.capital / span_s * SECONDS_PER_YEAR


def capacity(quotes: Quotes, trades: Trades) -> float | None:
    """Return the units that nine of ten entries would have found shown; None without sizes."""
    if quotes.bid_size is None or quotes.ask_size is None or not len(trades):
        return None
    at = trades.entry_index
    found = np.where(trades.side > 0, quotes.ask_size[at], quotes.bid_size[at])
    return float(np.quantile(found, 0.1))
