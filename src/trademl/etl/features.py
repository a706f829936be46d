"""The 600-lag recipe: recent prices relative to the mid at a row's as-of time.

Shape letters: N rows, D columns, L lags, P quotes, T seconds.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.market.seconds import SecondGrid, second_grid

QUOTE_COLUMNS = ("bid", "ask", "mid_open", "high", "low")
SPARSE_S = 10.0


@dataclass(frozen=True, slots=True)
class FeatureRecipe:
    """What the columns of a dataset are.

    Parameters
    ----------
    n_lags : int
        One-second lags, L: the mean mid of each second strictly before the as-of second.
    max_gap_s : int
        Longest time for which a second without a tick carries the last one forward; a row whose
        history has a longer gap is dropped.
    """

    n_lags: int = 600
    max_gap_s: int = 60

    def __post_init__(self) -> None:
        if self.n_lags < 1 or self.max_gap_s < 0:
            raise ValueError(
                f"n_lags is {self.n_lags} and max_gap_s is {self.max_gap_s}, expected at least 1 "
                "and 0"
            )

    @property
    def feature_dim(self) -> int:
        """Number of columns, D."""
        return len(QUOTE_COLUMNS) + self.n_lags

    @property
    def lookback_ns(self) -> int:
        """Longest time before its as-of second from which a row reads, carried values included."""
        return (self.n_lags + self.max_gap_s) * NS_PER_S

    def columns(self) -> list[dict[str, Any]]:
        """Return name, unit and latest time read of each column, in order."""
        unit = "quote currency, minus the mid at as-of"
        quote = [{"name": n, "unit": unit, "reads_up_to": "as-of"} for n in QUOTE_COLUMNS]
        lags = [
            {
                "name": f"mid_lag_{lag}s",
                "unit": unit,
                "reads_up_to": f"end of the second {lag} s before the as-of second",
            }
            for lag in range(self.n_lags, 0, -1)
        ]
        return quote + lags


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """Everything that feature rows are copied from; see `prepare`.

    ``mean_T`` is the mean mid of each second, ``cell_N`` each row's as-of second on that grid,
    ``mid_N`` the mid at as-of, ``quote_NC`` the quote columns.
    """

    mean_T: NDArray[np.float64]
    cell_N: NDArray[np.int64]
    mid_N: NDArray[np.float64]
    quote_NC: NDArray[np.float64]
    n_lags: int

    def __len__(self) -> int:
        return len(self.cell_N)

    def fill(self, out_ND: NDArray[np.float32], start: int = 0) -> None:
        """Write the features of rows ``start`` to ``start + len(out_ND)`` into ``out_ND``."""
        stop = start + len(out_ND)
        rows = slice(start, stop)
        _fill(self.mean_T, self.cell_N[rows], self.mid_N[rows], self.quote_NC[rows], out_ND)

    def fill_parallel(self, out_ND: NDArray[np.float32]) -> None:
        """Write the features of every row, on all cores."""
        edges = np.linspace(0, len(self), _n_workers() + 1).astype(int)
        with ThreadPoolExecutor(_n_workers()) as pool:
            for done in [pool.submit(self.fill, out_ND[a:b], int(a)) for a, b in pairwise(edges)]:
                done.result()


def _n_workers() -> int:
    return len(os.sched_getaffinity(0))


def check_density(quotes: Quotes) -> None:
    """Refuse a recording too sparse for one-second lags, before any work is done on it.

    Raises
    ------
    DataError
        If the median time between seconds with a quote is above 10 s.
    """
    seconds = np.unique(quotes.ts_event // NS_PER_S)
    step_s = float(np.median(np.diff(seconds))) if len(seconds) > 1 else float("inf")
    if step_s > SPARSE_S:
        raise DataError(
            f"too sparse for one-second lags: a quote comes every {step_s:g} s (median), expected "
            f"at most {SPARSE_S:g} s; give a recording of ticks"
        )


def has_history(
    quotes: Quotes, grid: SecondGrid, as_of_index_N: NDArray[np.int64], recipe: FeatureRecipe
) -> NDArray[np.bool_]:
    """Return whether each row has all of its lags; the others are dropped, never filled."""
    cell_N = grid.cell(quotes.ts_event[as_of_index_N])
    return grid.has_full_history(cell_N, recipe.n_lags, recipe.max_gap_s)


def prepare(
    quotes: Quotes, as_of_index_N: NDArray[np.int64], recipe: FeatureRecipe
) -> FeatureSource:
    """Return what the features of rows decided on the given quotes are copied from.

    Parameters
    ----------
    as_of_index_N : ndarray of int64, shape (N,)
        Quote on which each row is decided: executable, with full history.

    Raises
    ------
    DataError
        If a row has not all of its lags.

    Notes
    -----
    Causal: row ``n`` reads quote ``as_of_index_N[n]`` and, for the lags, quotes of seconds
    strictly before that quote's second. Quotes after it, even in the same second, are not read.

    The columns are bid, ask, mid_open, high, low at as-of, then the mean mid of each of the last
    ``n_lags`` seconds, oldest first; each minus the mid at as-of.
    """
    grid = second_grid(quotes)
    if not (full := has_history(quotes, grid, as_of_index_N, recipe)).all():
        row = int(np.flatnonzero(~full)[0])
        raise DataError(
            f"row {row} lacks part of the {recipe.n_lags} s of history that its features need: "
            "drop it, lower features.n_lags or raise features.max_gap_s"
        )
    quote_NC = np.stack([getattr(quotes, n)[as_of_index_N] for n in QUOTE_COLUMNS], axis=1)
    cell_N = grid.cell(quotes.ts_event[as_of_index_N])
    return FeatureSource(grid.mean_T, cell_N, quotes.mid[as_of_index_N], quote_NC, recipe.n_lags)


def feature_matrix(
    quotes: Quotes, as_of_index_N: NDArray[np.int64], recipe: FeatureRecipe
) -> NDArray[np.float32]:
    """Return the features of rows decided on the given quotes, shape (N, D); see `prepare`."""
    source = prepare(quotes, as_of_index_N, recipe)
    out_ND = np.empty((len(source), recipe.feature_dim), np.float32)
    source.fill_parallel(out_ND)
    return out_ND


@njit(cache=True, nogil=True)
def _fill(mean_T, cell_N, mid_N, quote_NC, out_ND):  # type: ignore[no-untyped-def]
    n_quote = quote_NC.shape[1]
    n_lags = out_ND.shape[1] - n_quote
    for n in range(len(cell_N)):
        mid = mid_N[n]
        row = out_ND[n]
        for column in range(n_quote):
            row[column] = quote_NC[n, column] - mid
        window = mean_T[cell_N[n] - n_lags : cell_N[n]]
        lags = row[n_quote:]
        for lag in range(n_lags):
            lags[lag] = window[lag] - mid
