"""Feature rows: what a recipe reads before each row's as-of time, copied into float32.

Shape letters: N rows, D columns, T seconds, R resolutions, A columns known at as-of, B columns of
indicators of the clock's bars.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl.recipe import BarsOf, FeatureRecipe
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.market.seconds import SecondGrid, second_grid, volatility_per_second

SPARSE_S = 10.0

__all__ = [
    "FeatureRecipe",
    "FeatureSource",
    "check_density",
    "feature_matrix",
    "prepare",
    "usable_rows",
]


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """Everything that feature rows are copied from; made by `prepare`.

    Parameters
    ----------
    mean_T : ndarray of float64
        Mean mid of each second.
    cell_N : ndarray of int64
        Each row's as-of second on that grid.
    mid_N, scale_N : ndarray of float64
        Mid at as-of, and what price differences are multiplied by.
    as_of_NA, indicator_NB : ndarray of float64
        Finished columns to the left and to the right of the lags.
    lags_R2 : ndarray of int64
        Number and spacing of each resolution.
    n_recorded : int
        The last columns of ``as_of_NA`` that are indicators of the recording's own bars.
    """

    mean_T: NDArray[np.float64]
    cell_N: NDArray[np.int64]
    mid_N: NDArray[np.float64]
    scale_N: NDArray[np.float64]
    as_of_NA: NDArray[np.float64]
    lags_R2: NDArray[np.int64]
    indicator_NB: NDArray[np.float64]
    n_recorded: int = 0

    def __len__(self) -> int:
        return len(self.cell_N)

    @property
    def feature_dim(self) -> int:
        """Number of columns, D."""
        outer = int(self.as_of_NA.shape[1] + self.indicator_NB.shape[1])
        return outer + int(self.lags_R2[:, 0].sum())

    @property
    def is_finished(self) -> NDArray[np.bool_]:
        """Whether each row's scale and indicators are there, which a full history does not say."""
        own_NB = self.as_of_NA[:, self.as_of_NA.shape[1] - self.n_recorded :]
        has_all = np.isfinite(self.indicator_NB).all(axis=1) & np.isfinite(own_NB).all(axis=1)
        finished: NDArray[np.bool_] = np.logical_and(np.isfinite(self.scale_N), has_all)
        return finished

    def fill(self, out_ND: NDArray[np.float32], start: int = 0) -> None:
        """Write the features of rows ``start`` to ``start + len(out_ND)`` into ``out_ND``.

        Parameters
        ----------
        out_ND : ndarray of float32
            The cells of a row lie side by side; rows may lie apart, as in the frames of a file.
        """
        if not out_ND.size:
            return
        rows = slice(start, start + len(out_ND))
        cells, step = _side_by_side(out_ND)
        _fill(
            self.mean_T,
            self.cell_N[rows],
            self.mid_N[rows],
            self.scale_N[rows],
            self.as_of_NA[rows],
            self.lags_R2,
            self.indicator_NB[rows],
            cells,
            step,
            out_ND.shape[1],
        )

    def fill_parallel(self, out_ND: NDArray[np.float32]) -> None:
        """Write the features of every row, on all cores."""
        n_workers = len(os.sched_getaffinity(0))
        edges = np.linspace(0, len(self), n_workers + 1).astype(int)
        with ThreadPoolExecutor(n_workers) as pool:
            for done in [pool.submit(self.fill, out_ND[a:b], int(a)) for a, b in pairwise(edges)]:
                done.result()


def check_density(quotes: Quotes, recipe: FeatureRecipe) -> None:
    """Refuse a recording too sparse for a recipe's lags, before any work is done on it.

    Raises
    ------
    DataError
        If the median time between seconds with a quote is above ten spacings of its finest lags;
        windows of volatility count as lags of one second.
    """
    seconds = np.unique(quotes.ts_event // NS_PER_S)
    step_s = float(np.median(np.diff(seconds))) if len(seconds) > 1 else float("inf")
    by_second = [1] if recipe.volatility_s or recipe.scaling == "volatility" else []
    spacing_s = min([*by_second, *(lags.spacing_s for lags in recipe.lags)], default=None)
    if spacing_s is not None and step_s > SPARSE_S * spacing_s:
        lags = "one-second lags" if spacing_s == 1 else f"lags of {spacing_s} s"
        raise DataError(
            f"too sparse for {lags}: a quote comes every {step_s:g} s (median), expected at most "
            f"{SPARSE_S * spacing_s:g} s; give a recording of ticks, or lags of wider spacing"
        )


def usable_rows(
    quotes: Quotes,
    as_of_index_N: NDArray[np.int64],
    recipe: FeatureRecipe,
    *,
    grid: SecondGrid | None = None,
) -> NDArray[np.bool_]:
    """Return whether each row has all that its features need; the others are dropped, never filled.

    A row needs every second of its history at most ``max_gap_s`` old, the full window of each
    indicator and, where it is scaled by volatility, prices that moved.
    """
    grid = grid or second_grid(quotes)
    cell_N = grid.cell(quotes.ts_event[as_of_index_N])
    usable_N = grid.has_full_history(cell_N, recipe.history_s, recipe.max_gap_s)
    if usable_N.any() and (recipe.scaling == "volatility" or recipe.indicators):
        source = _source(quotes, grid, as_of_index_N[usable_N], recipe)
        usable_N[usable_N] = source.is_finished
    return usable_N


def prepare(
    quotes: Quotes,
    as_of_index_N: NDArray[np.int64],
    recipe: FeatureRecipe,
    *,
    grid: SecondGrid | None = None,
) -> FeatureSource:
    """Return what the features of rows decided on the given quotes are copied from.

    Parameters
    ----------
    as_of_index_N : ndarray of int64, shape (N,)
        Quote on which each row is decided: executable, and usable by `usable_rows`.
    grid : SecondGrid, optional
        The recording's, where it was made before.

    Raises
    ------
    DataError
        If a row lacks part of what its features need.

    Notes
    -----
    Causal: row ``n`` reads quote ``as_of_index_N[n]`` and, for all else, quotes of seconds strictly
    before that quote's second. Quotes after it, even in the same second, are not read.
    """
    grid = grid or second_grid(quotes)
    usable_N = usable_rows(quotes, as_of_index_N, recipe, grid=grid)
    if not usable_N.all():
        row = int(np.flatnonzero(~usable_N)[0])
        raise DataError(
            f"row {row} lacks part of the {recipe.history_s} s of history that its features need: "
            "drop it, shorten features.lags or raise features.max_gap_s"
        )
    return _source(quotes, grid, as_of_index_N, recipe)


def feature_matrix(
    quotes: Quotes, as_of_index_N: NDArray[np.int64], recipe: FeatureRecipe
) -> NDArray[np.float32]:
    """Return the features of rows decided on the given quotes, shape (N, D); see `prepare`."""
    source = prepare(quotes, as_of_index_N, recipe)
    out_ND = np.empty((len(source), source.feature_dim), np.float32)
    source.fill_parallel(out_ND)
    return out_ND


def _source(
    quotes: Quotes, grid: SecondGrid, as_of_index_N: NDArray[np.int64], recipe: FeatureRecipe
) -> FeatureSource:
    from trademl.etl.indicators import indicator_values, recorded_bar_values

    as_of_ns_N = quotes.ts_event[as_of_index_N]
    values = [
        indicator_values(quotes, as_of_ns_N, indicator, recipe.max_gap_s)
        if indicator.of == "clock"
        else recorded_bar_values(quotes, as_of_index_N, indicator)
        for indicator in recipe.indicators
    ]
    return source_of(quotes, grid, as_of_index_N, recipe, values)


def source_of(
    quotes: Quotes,
    grid: SecondGrid,
    as_of_index_N: NDArray[np.int64],
    recipe: FeatureRecipe,
    values: Sequence[NDArray[np.float64]],
) -> FeatureSource:
    """Return what rows are copied from, whether or not they are usable.

    Parameters
    ----------
    quotes : Quotes
        Only the quotes of the rows themselves are read.
    values : sequence of ndarray of float64, each of shape (N, K)
        Outputs of each of the recipe's indicators.
    """
    cell_N = grid.cell(quotes.ts_event[as_of_index_N])
    mid_N = quotes.mid[as_of_index_N]
    scale_N = _scale(grid, cell_N, mid_N, recipe)
    at_as_of = [
        (getattr(quotes, name)[as_of_index_N] - mid_N) * scale_N for name in recipe.quote_columns
    ]
    if recipe.spread:
        at_as_of.append(quotes.spread[as_of_index_N] * scale_N)
    for window_s in recipe.volatility_s:
        sigma_N = volatility_per_second(grid, cell_N, window_s=window_s, max_gap_s=recipe.max_gap_s)
        at_as_of.append(sigma_N * scale_N)
    recorded = _indicators(values, mid_N, scale_N, recipe, "recording")
    return FeatureSource(
        grid.mean_T,
        cell_N,
        mid_N,
        scale_N,
        _columns([*at_as_of, *recorded], len(cell_N)),
        np.array([(x.number, x.spacing_s) for x in recipe.lags], np.int64).reshape(-1, 2),
        _columns(_indicators(values, mid_N, scale_N, recipe, "clock"), len(cell_N)),
        len(recorded),
    )


def _scale(
    grid: SecondGrid,
    cell_N: NDArray[np.int64],
    mid_N: NDArray[np.float64],
    recipe: FeatureRecipe,
) -> NDArray[np.float64]:
    if recipe.scaling == "none":
        return np.ones(len(cell_N))
    if recipe.scaling == "returns":
        return np.reciprocal(mid_N)
    window_s = recipe.scaling_window_s
    sigma_N = volatility_per_second(grid, cell_N, window_s=window_s, max_gap_s=recipe.max_gap_s)
    expected_move_N = np.where(sigma_N > 0, sigma_N, np.nan) * np.sqrt(window_s)
    scale_N: NDArray[np.float64] = np.reciprocal(expected_move_N)
    return scale_N


def _indicators(
    values: Sequence[NDArray[np.float64]],
    mid_N: NDArray[np.float64],
    scale_N: NDArray[np.float64],
    recipe: FeatureRecipe,
    of: BarsOf,
) -> list[NDArray[np.float64]]:
    from trademl.etl.indicators import output_names

    columns: list[NDArray[np.float64]] = []
    for indicator, values_NK in zip(recipe.indicators, values, strict=True):
        if indicator.of != of:
            continue
        for k, (_, is_price) in enumerate(output_names(indicator)):
            value_N = values_NK[:, k]
            columns.append((value_N - mid_N) * scale_N if is_price else value_N)
    return columns


def _columns(columns: list[NDArray[np.float64]], n_rows: int) -> NDArray[np.float64]:
    return np.stack(columns, axis=1) if columns else np.empty((n_rows, 0))


def _side_by_side(out_ND: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Return the memory of rows as one vector, and how many cells lie between their beginnings.

    To the compiler the cells of a row of frames may lie anywhere, and it would store them one by
    one; those of a vector lie side by side.
    """
    n_bytes, step = out_ND.itemsize, out_ND.strides[0] // out_ND.itemsize
    if out_ND.strides != (step * n_bytes, n_bytes):
        raise ValueError(f"cells of a row lie {out_ND.strides[1]} bytes apart, expected {n_bytes}")
    n_cells = (len(out_ND) - 1) * step + out_ND.shape[1]
    return np.lib.stride_tricks.as_strided(out_ND, (n_cells,), (n_bytes,)), step


@njit(cache=True, nogil=True)
def _fill(  # type: ignore[no-untyped-def]
    mean_T, cell_N, mid_N, scale_N, left_NA, lags_R2, right_NB, cells, step, n_columns
):
    n_left, n_right = left_NA.shape[1], right_NB.shape[1]
    for n in range(len(cell_N)):
        mid, scale, row = mid_N[n], scale_N[n], cells[n * step : n * step + n_columns]
        for column in range(n_left):
            row[column] = left_NA[n, column]
        at = n_left
        for r in range(len(lags_R2)):
            number, spacing = lags_R2[r]
            window = mean_T[cell_N[n] - number * spacing : cell_N[n]]
            lags = row[at : at + number]
            if spacing == 1:
                for lag in range(number):
                    lags[lag] = (window[lag] - mid) * scale
            else:
                for lag in range(number):
                    total = 0.0
                    for second in range(lag * spacing, (lag + 1) * spacing):
                        total += window[second]
                    lags[lag] = (total / spacing - mid) * scale
            at += number
        for column in range(n_right):
            row[at + column] = right_NB[n, column]
