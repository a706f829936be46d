"""A recording on the wall clock: one mid price for every second.

Shape letters: P quotes, T seconds, N moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.market.quotes import NS_PER_S, Quotes


@dataclass(frozen=True, slots=True)
class SecondGrid:
    """Mid prices on a gap-free grid of seconds; arrays of shape (T,).

    Parameters
    ----------
    start_s : int
        UTC second of the first cell.
    mean_T : ndarray of float64
        Mean mid of the executable quotes in each second; a second without one carries the last
        such second's value forward, and is NaN before the first.
    last_T : ndarray of float64
        The last executable mid at the end of each second, carried forward likewise.
    age_T : ndarray of int64
        Seconds since the second whose quotes each value comes from; 0 where it has its own.

    Notes
    -----
    Causal: the cell of a second reads quotes up to the end of that second. It is known only when
    that second is over.
    """

    start_s: int
    mean_T: NDArray[np.float64]
    last_T: NDArray[np.float64]
    age_T: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.mean_T)

    def cell(self, ts_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the grid index of the second in which each time (UTC ns) lies."""
        return ts_N // NS_PER_S - self.start_s

    def has_full_history(
        self, cell_N: NDArray[np.int64], n_seconds: int, max_gap_s: int
    ) -> NDArray[np.bool_]:
        """Return whether every one of the ``n_seconds`` before a cell has a fresh enough value."""
        is_stale_T = np.isnan(self.mean_T) | (self.age_T > max_gap_s)
        n_stale = np.concatenate(([0], np.cumsum(is_stale_T)))
        first = np.maximum(cell_N - n_seconds, 0)
        full: NDArray[np.bool_] = (cell_N >= n_seconds) & (n_stale[cell_N] == n_stale[first])
        return full


def second_grid(quotes: Quotes) -> SecondGrid:
    """Return the recording's mid prices second by second; flagged quotes are passed over."""
    if len(quotes) == 0:
        return SecondGrid(0, np.empty(0), np.empty(0), np.empty(0, np.int64))
    start_s = int(quotes.ts_event[0] // NS_PER_S)
    n_seconds = int(quotes.ts_event[-1] // NS_PER_S) - start_s + 1
    return SecondGrid(
        start_s,
        *_fill_grid(quotes.ts_event, quotes.bid, quotes.ask, quotes.flags, start_s, n_seconds),
    )


@njit(cache=True, nogil=True)
def _fill_grid(ts_event, bid, ask, flags, start_s, n_seconds):  # type: ignore[no-untyped-def]
    mean = np.full(n_seconds, np.nan)
    last = np.full(n_seconds, np.nan)
    age = np.zeros(n_seconds, np.int64)
    mean_before, last_before, age_before = np.nan, np.nan, 0
    k = 0
    for cell in range(n_seconds):
        total, count = 0.0, 0
        end_ns = (start_s + cell + 1) * NS_PER_S
        while k < len(ts_event) and ts_event[k] < end_ns:
            if flags[k] == 0:
                last_before = (bid[k] + ask[k]) / 2
                total += last_before
                count += 1
            k += 1
        if count > 0:
            mean_before, age_before = total / count, 0
        else:
            age_before += 1
        mean[cell], last[cell], age[cell] = mean_before, last_before, age_before
    return mean, last, age


def volatility_per_second(
    grid: SecondGrid, cell_N: NDArray[np.int64], *, window_s: int, max_gap_s: int
) -> NDArray[np.float64]:
    """Return the root mean square of one-second mid changes before each cell.

    Parameters
    ----------
    cell_N : ndarray of int64, shape (N,)
        Grid cells of the moments asked about.
    window_s : int
        Seconds looked back.

    Returns
    -------
    ndarray of float64, shape (N,)
        Quote currency per square root of a second; NaN where the window is not full.

    Notes
    -----
    Causal: reads the ``window_s`` seconds strictly before each cell.
    """
    full = grid.has_full_history(cell_N, window_s, max_gap_s)
    return _root_mean_square(grid.last_T, cell_N, full, window_s)  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _root_mean_square(last_T, cell_N, is_full_N, window_s):  # type: ignore[no-untyped-def]
    out_N = np.full(len(cell_N), np.nan)
    for n in range(len(cell_N)):
        if not is_full_N[n]:
            continue
        total = 0.0  # summed anew for each row, so that it does not depend on where data begin
        for cell in range(cell_N[n] - window_s + 1, cell_N[n]):
            total += (last_T[cell] - last_T[cell - 1]) ** 2
        out_N[n] = np.sqrt(total / (window_s - 1))
    return out_N
