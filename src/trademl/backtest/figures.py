"""The figures by which a backtest is judged, with intervals, and benchmarks beside them.

Returns are profits over fixed steps of time as a share of the capital, which is not compounded.
Ratios are annualised by the steps that a calendar year of the span's own pace holds. What
`empyrical` has is taken from it.

Shape letters: T returns, N trades.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.settings import BacktestConfig
from trademl.backtest.trades import Trades
from trademl.market.costs import Costs
from trademl.market.friction import SECONDS_PER_DAY
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.stats.resampling import Figures, intervals
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


@dataclass(frozen=True, slots=True)
class OfTrades:
    """What figures of trades read of them; arrays of shape (N,).

    Parameters
    ----------
    pnl_N : ndarray of float64
        Profit after all costs.
    value_N : ndarray of float64
        Money bought and sold.
    held_s_N : ndarray of float64
        How long each was held.
    shown_N : ndarray of float64, optional
        Units that each entry found shown.
    span_s, capital : float
        Length of the recording, and what returns are measured against.
    """

    pnl_N: NDArray[np.float64]
    value_N: NDArray[np.float64]
    held_s_N: NDArray[np.float64]
    shown_N: NDArray[np.float64] | None
    span_s: float
    capital: float

    def take(self, rows: NDArray[np.int64]) -> OfTrades:
        """Return some of the trades, in another order perhaps."""
        return replace(
            self,
            pnl_N=self.pnl_N[rows],
            value_N=self.value_N[rows],
            held_s_N=self.held_s_N[rows],
            shown_N=None if self.shown_N is None else self.shown_N[rows],
        )

    def figures(self) -> dict[str, float | None]:
        """Return average trade, hit rate, profit factor, exposure, turnover and capacity.

        ``exposure`` is the share of the span spent in a position, ``turnover_per_year`` the money
        bought and sold in a year as a multiple of the capital, ``capacity_units`` the units that
        nine of ten entries found shown.
        """
        n, span_s = len(self.pnl_N), self.span_s
        lost = float(-self.pnl_N[self.pnl_N < 0].sum())
        won = float(self.pnl_N[self.pnl_N > 0].sum())
        a_year = SECONDS_PER_YEAR / span_s if span_s else 0.0
        shown = self.shown_N
        return {
            "average_trade": float(self.pnl_N.mean()) if n else None,
            "hit_rate": float((self.pnl_N > 0).mean()) if n else None,
            "profit_factor": won / lost if lost else None,
            "exposure": float(self.held_s_N.sum()) / span_s if span_s else None,
            "turnover_per_year": float(self.value_N.sum()) / self.capital * a_year
            if span_s
            else None,
            "capacity_units": float(np.quantile(shown, 0.1)) if shown is not None and n else None,
        }


def trades_of(quotes: Quotes, trades: Trades, costs: Costs, config: BacktestConfig) -> OfTrades:
    """Return what figures of trades read."""
    ts, traded = quotes.ts_event, trades.size * (trades.entry_price + trades.exit_price)
    shown = None
    if quotes.bid_size is not None and quotes.ask_size is not None:
        at = trades.entry_index
        shown = np.where(trades.side > 0, quotes.ask_size[at], quotes.bid_size[at])
    return OfTrades(
        trades.pnl,
        traded * costs.multiplier,
        (ts[trades.exit_index] - ts[trades.entry_index]) / NS_PER_S,
        shown,
        float(ts[-1] - ts[0]) / NS_PER_S if len(ts) else 0.0,
        config.capital,
    )


def sureness_of(value_T: NDArray[np.float64], n_trials: int) -> dict[str, float | None]:
    """Return the probabilistic Sharpe ratio of returns, and the deflated one after some trials."""
    found = sharpe_ratio(value_T)
    return {
        "probabilistic_sharpe": None if found is None else probabilistic_sharpe_ratio(found),
        "deflated_sharpe": None if found is None else deflated_sharpe_ratio(found, n_trials),
    }


def plain_figures(
    quotes: Quotes,
    trades: Trades,
    equity_ts_ns: NDArray[np.int64],
    equity: NDArray[np.float64],
    costs: Costs,
    config: BacktestConfig,
) -> dict[str, float | None]:
    """Return the value of each of `figures`, for what stands beside a backtest."""
    returns = returns_of(equity_ts_ns, equity, config.capital)
    return {
        **figures_of(returns.value_T, returns.per_year),
        **trades_of(quotes, trades, costs, config).figures(),
        **sureness_of(returns.value_T, config.n_trials),
    }


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
        those of trades) for each figure; beside them the trials that the deflated Sharpe ratio
        counts, the step of the returns, and their number.
    """
    returns = returns_of(equity_ts_ns, equity, config.capital)
    of_trades = trades_of(quotes, trades, costs, config)
    value_T, row_N = returns.value_T, np.arange(len(trades))
    sure = _with_intervals(value_T, lambda v: sureness_of(v, config.n_trials), seed=seed)
    return {
        **_with_intervals(value_T, lambda v: figures_of(v, returns.per_year), seed=seed),
        **_with_intervals(row_N, lambda rows: of_trades.take(rows).figures(), seed=seed),
        **sure,
        "n_trials": config.n_trials,
        "returns_step_s": returns.step_s,
        "n_returns": len(value_T),
    }


def _with_intervals(values: NDArray[Any], of: Figures, *, seed: int) -> dict[str, Any]:
    block = max(1, math.ceil(len(values) ** (1 / 3)))
    bounds = intervals(values, of, block_length=block, seed=seed) if len(values) else {}
    told: dict[str, Any] = {}
    for name, value in of(values).items():
        low, high = bounds.get(name) or (None, None)
        told[name] = {"value": value, "low": low, "high": high}
    return told
