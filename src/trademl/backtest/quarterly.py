"""Walk forward by quarters: forecast each asset's next quarter, choose weights, hold them.

A decision is made on the last snapshot before a quarter begins. It learns from targets that had
ended by then, and is filled by `trademl.backtest.allocation` on later prices.

Shape letters: T snapshots, A assets, K indicators, I days, R decisions, N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.allocation import Allocation, AllocationRules, Weights, run_allocation
from trademl.backtest.panel import Panel
from trademl.backtest.quarterly_settings import QuarterlyConfig
from trademl.backtest.weights import best_weights, shrunk_covariance
from trademl.errors import DataError
from trademl.etl.snapshot_indicators import SnapshotRecipe, snapshot_indicators
from trademl.market.costs import Costs
from trademl.market.quotes import NS_PER_S
from trademl.market.snapshots import NEVER, Snapshots
from trademl.ports import Progress, Silent
from trademl.store.identity import code_version
from trademl.train.model import Model, RegressionModel
from trademl.train.ridge import fit_ridge

DAY_NS = 86_400 * NS_PER_S
YEAR_DAYS = 365.25
COVARIANCE_DAYS = 252
VALIDATION_SHARE = 0.25  # of the days before a decision, the latest ones
LEAST_ROWS = 200


@dataclass(frozen=True)
class Rows:
    """Days on which an asset had every indicator, and what its next period brought.

    Parameters
    ----------
    day_N, asset_N : ndarray of int64
        Number of the day and of the asset.
    features_NK : ndarray of float32
    target_N : ndarray of float64
        Log return from the asset's next bar to the last one within the period; NaN where the
        recording ends before.
    ends_ns_N : ndarray of int64
        When the target is known, UTC nanoseconds.
    columns : tuple of str
        Names of the K indicators.
    """

    day_N: NDArray[np.int64]
    asset_N: NDArray[np.int64]
    features_NK: NDArray[np.float32]
    target_N: NDArray[np.float64]
    ends_ns_N: NDArray[np.int64]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """A model of one decision.

    Parameters
    ----------
    model : Model
        What is kept and served: it takes the features of a row, and returns its log return.
    forecast : callable
        Takes numbers of rows, returns what the model says of them.
    gain : float
        Share of squared error that the model took off the mean's, on its validation rows.
    """

    model: Model
    forecast: Callable[[NDArray[np.int64]], NDArray[np.float64]]
    gain: float


Fit = Callable[[Rows, NDArray[np.bool_], NDArray[np.bool_]], Fitted]


@dataclass(frozen=True)
class Walk:
    """Decisions of a walk, and what was known and forecast at each.

    Parameters
    ----------
    weights, equal : Weights
        Chosen ones, and equal ones among the assets that could be bought.
    forecast_RA, realised_RA : ndarray of float64
        Log returns over the period after each decision; NaN where there is none.
    n_rows_R : ndarray of int64
        Training rows.
    gain_R : ndarray of float64
        Of the model, see `Fitted`.
    fits : tuple of Fitted
        The models, oldest first.
    fit_R : ndarray of int64
        Which of them decided.
    rows : Rows
        What they learned from.
    """

    weights: Weights
    equal: Weights
    forecast_RA: NDArray[np.float64]
    realised_RA: NDArray[np.float64]
    n_rows_R: NDArray[np.int64]
    gain_R: NDArray[np.float64]
    fits: tuple[Fitted, ...]
    fit_R: NDArray[np.int64]
    rows: Rows


def day_rows(snapshots: Snapshots, config: QuarterlyConfig) -> tuple[NDArray[np.int64], Rows]:
    """Return the last snapshot of each UTC day, shape (I,), and the rows of those days.

    Notes
    -----
    Causal: features read bars that ended at or before the day's last snapshot.
    """
    recipe = SnapshotRecipe(config.horizons)
    found_TAK = snapshot_indicators(snapshots, recipe)
    day_T = snapshots.ts_T // DAY_NS
    at_I = np.flatnonzero(np.diff(day_T, append=day_T[-1] + 1))
    own_IAK = found_TAK[at_I]
    i_N, a_N = np.nonzero(np.isfinite(own_IAK).all(axis=2))
    target_IA = _targets(snapshots, at_I, config.period_days, recipe.max_age_s)
    ends_N = snapshots.ts_T[at_I][i_N] + config.period_days * DAY_NS
    return at_I, Rows(i_N, a_N, own_IAK[i_N, a_N], target_IA[i_N, a_N], ends_N, tuple(recipe.names))


def _targets(
    snapshots: Snapshots, at_I: NDArray[np.int64], days: int, max_age_s: int
) -> NDArray[np.float64]:
    """Return log returns of mids from the first bar after each day to the last one of its period.

    NaN where the recording ends before the period does, or the asset had stopped trading.
    """
    ts_I = snapshots.ts_T[at_I]
    end_I = ts_I + days * DAY_NS
    target_IA = np.full((len(at_I), len(snapshots.symbols)), np.nan)
    for a, bars in enumerate(snapshots.bars):
        if not len(bars):
            continue
        log_M = np.log(bars.close + bars.spread / 2)
        first_I = snapshots.last_TA[at_I, a] + 1
        last_I = np.searchsorted(bars.ts_close, end_I, side="right") - 1
        is_old_I = end_I - bars.ts_close[last_I] > max_age_s * NS_PER_S
        good_I = (first_I > 0) & (last_I >= first_I) & ~is_old_I
        good_I &= end_I <= snapshots.ts_T[-1]
        target_IA[good_I, a] = log_M[last_I[good_I]] - log_M[first_I[good_I]]
    return target_IA


def quarter_decisions(
    snapshots: Snapshots, at_I: NDArray[np.int64], first_years: float
) -> list[int]:
    """Return the days (numbers of ``at_I``) that are the last before a quarter begins."""
    ts_I = snapshots.ts_T[at_I]
    month_I = ts_I.astype("datetime64[ns]").astype("datetime64[M]").astype(int)
    is_last = np.flatnonzero(np.diff(month_I // 3) > 0)
    begins = snapshots.ts_T[0] + int(first_years * YEAR_DAYS * DAY_NS)
    return [int(i) for i in is_last if ts_I[i] >= begins]


def ridge(rows: Rows, trains_N: NDArray[np.bool_], validates_N: NDArray[np.bool_]) -> Fitted:
    """Fit the smallest model."""
    x_NK, y_N = rows.features_NK, rows.target_N
    found = fit_ridge(x_NK[trains_N], y_N[trains_N], x_NK[validates_N], y_N[validates_N])
    model = RegressionModel(
        weights_D=found.weight_D,
        bias=found.intercept,
        mean_D=found.mean_D,
        scale_D=found.std_D,
        columns=rows.columns,
        hyperparameters={"penalty": found.penalty},
        metrics={"validation_gain": found.validation_gain},
        code_version=code_version(),
    )
    return Fitted(model, lambda numbers: found.predict(x_NK[numbers]), found.validation_gain)


def walk_quarters(
    snapshots: Snapshots,
    config: QuarterlyConfig,
    costs: Costs,
    *,
    fit: Fit = ridge,
    refit_quarters: int = 1,
    progress: Progress | None = None,
) -> Walk:
    """Decide at each quarter's end by what was known then.

    Parameters
    ----------
    fit : callable
        Takes rows and which of them train and validate.
    refit_quarters : int
        Quarters between two fits.

    Raises
    ------
    DataError
        If the recording is too short for one decision.

    Notes
    -----
    Causal: a row trains if its period ended at or before the decision. The latest quarter of the
    days validates; a training row's period ends before the first of these.
    """
    progress = progress or Silent()
    at_I, rows = day_rows(snapshots, config)
    decisions = quarter_decisions(snapshots, at_I, config.first_years)
    if not decisions:
        raise DataError(
            f"the recording has no quarter's end after {config.first_years:g} years: give more "
            "bars, or a smaller allocation.first_years"
        )
    shape = (len(decisions), len(snapshots.symbols))
    forecast_RA, realised_RA = np.full(shape, np.nan), np.full(shape, np.nan)
    n_rows_R, gain_R = np.zeros(len(decisions), np.int64), np.full(len(decisions), np.nan)
    fits: list[Fitted] = []
    fit_R = np.zeros(len(decisions), np.int64)
    for r, i in enumerate(decisions):
        here = np.flatnonzero(rows.day_N == i)
        trains_N, validates_N = known_rows(rows, snapshots.ts_T[at_I], i)
        if trains_N.sum() < LEAST_ROWS or not len(here):
            raise DataError(_too_little(snapshots.ts_T[at_I[i]], int(trains_N.sum())))
        if not fits or r % refit_quarters == 0:
            fits.append(fit(rows, trains_N, validates_N))
        fit_R[r], n_rows_R[r], gain_R[r] = len(fits) - 1, trains_N.sum(), fits[-1].gain
        forecast_RA[r, rows.asset_N[here]] = fits[-1].forecast(here)
        realised_RA[r, rows.asset_N[here]] = rows.target_N[here]
        progress.advance(r + 1, len(decisions))
    weight_RA = _choose(snapshots, at_I, decisions, forecast_RA, config, costs)
    can_RA = np.isfinite(forecast_RA)
    equal_RA = can_RA / can_RA.sum(axis=1, keepdims=True)
    at_ns = snapshots.ts_T[at_I[decisions]]
    weights, equal = Weights(at_ns, weight_RA), Weights(at_ns, equal_RA)
    return Walk(
        weights, equal, forecast_RA, realised_RA, n_rows_R, gain_R, tuple(fits), fit_R, rows
    )


def _too_little(ts_ns: np.int64, n_rows: int) -> str:
    day = np.datetime64(int(ts_ns), "ns").astype("datetime64[D]")
    return (
        f"the decision of {day} has {n_rows} training rows, expected {LEAST_ROWS} or more and an "
        "asset that trades: raise allocation.first_years or shorten allocation.horizons"
    )


def _choose(
    snapshots: Snapshots,
    at_I: NDArray[np.int64],
    decisions: list[int],
    forecast_RA: NDArray[np.float64],
    config: QuarterlyConfig,
    costs: Costs,
) -> NDArray[np.float64]:
    """Return the weights of each decision, from forecasts and prices up to it."""
    close_IA, spread_IA = snapshots.close()[at_I], snapshots.spread()[at_I]
    cost_IA = np.nan_to_num(_cost_share(close_IA, spread_IA, costs)) * config.turnover_penalty
    return_IA = np.nan_to_num(np.diff(np.log(close_IA), axis=0, prepend=np.nan))
    periods = config.period_days * COVARIANCE_DAYS / YEAR_DAYS
    weight_RA = np.zeros_like(forecast_RA)
    for r, i in enumerate(decisions):
        held_A = weight_RA[r - 1] if r else np.zeros(len(snapshots.symbols))
        if r:
            held_A = drifted(held_A, close_IA[decisions[r - 1]], close_IA[i])
        recent_NA = return_IA[max(i - COVARIANCE_DAYS + 1, 0) : i + 1]
        weight_RA[r] = best_weights(
            forecast_RA[r],
            shrunk_covariance(recent_NA, periods=periods, shrinkage=config.shrinkage),
            held_A,
            cost_IA[i],
            risk_aversion=config.risk_aversion,
            max_weight=config.max_weight,
        )
    return weight_RA


def known_rows(
    rows: Rows, ts_I: NDArray[np.int64], i: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows train and which validate a decision of day ``i``."""
    known_N = (rows.ends_ns_N <= ts_I[i]) & np.isfinite(rows.target_N)
    if not known_N.any():
        return known_N, known_N
    days = np.unique(rows.day_N[known_N])
    first = days[int(len(days) * (1 - VALIDATION_SHARE))]
    validates_N = known_N & (rows.day_N >= first)
    return known_N & (rows.ends_ns_N <= ts_I[first]), validates_N


def drifted(
    weight_A: NDArray[np.float64], before_A: NDArray[np.float64], now_A: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what weights have become as prices moved; cash is what is left of 1."""
    with np.errstate(invalid="ignore"):
        grown_A = np.where(weight_A > 0, weight_A * now_A / before_A, 0.0)
    return np.asarray(grown_A / (1 - weight_A.sum() + grown_A.sum()))


def _cost_share(
    close_IA: NDArray[np.float64], spread_IA: NDArray[np.float64], costs: Costs
) -> NDArray[np.float64]:
    """Return the cost of one side as a share of the value traded."""
    worse_IA = spread_IA * (costs.spread_scale / 2 + costs.slippage_spreads) + costs.slippage
    return (worse_IA + costs.fee_per_unit / costs.multiplier) / close_IA + costs.fee_bps * 1e-4


def executable(snapshots: Snapshots, since_ns: int) -> Panel:
    """Return the prices at which each asset could be traded, from a time on.

    Notes
    -----
    A bar's close can be traded on when the bar ends. Dividends are put back into shares.
    """
    first = int(np.searchsorted(snapshots.ts_T, since_ns))
    ts = snapshots.ts_T[first:]
    bid = np.full((len(snapshots.symbols), len(ts)), np.nan)
    ask = bid.copy()
    for a, bars in enumerate(snapshots.bars):
        last_T = snapshots.last_TA[first:, a]
        is_new = np.zeros(len(ts), bool)
        seen = last_T != NEVER
        is_new[seen] = bars.ts_close[last_T[seen]] == ts[seen]
        bid[a, is_new] = bars.close[last_T[is_new]]
        ask[a, is_new] = bid[a, is_new] + bars.spread[last_T[is_new]]
    nothing = np.zeros_like(bid)
    return Panel(ts, bid, ask, nothing, nothing)


def hold(prices: Panel, weights: Weights, costs: Costs, config: QuarterlyConfig) -> Allocation:
    """Trade weights on prices by the one fill model."""
    return run_allocation(prices, weights, costs, rules=AllocationRules(band=config.band))
