"""Which rows stand for spans of time that overlap.

Shape letters: N rows, M other rows.

A row stands for the closed interval from the oldest price that its features may read to the exit
that decided its label. Two rows whose intervals touch share a price: one knows of the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError

Times = NDArray[np.int64]


def overlaps_any(
    start_N: Times, exit_N: Times, other_start_M: Times, other_exit_M: Times
) -> NDArray[np.bool_]:
    """Return for each interval whether it shares an instant with any of the others.

    Exact for intervals of any length, in O((N + M) log M): of the others that start no later than
    an interval ends, those that ended before it starts are the ones that miss it.

    Parameters
    ----------
    start_N, exit_N, other_start_M, other_exit_M : ndarray of int64
        Closed intervals, in any order; each starts no later than it ends.

    Returns
    -------
    ndarray of bool, shape (N,)

    Examples
    --------
    >>> overlaps_any(np.array([0, 5]), np.array([3, 9]), np.array([9]), np.array([12]))
    array([False,  True])
    """
    found_N = np.zeros(len(start_N), np.bool_)
    if not len(other_start_M):
        return found_N
    # The hull costs two comparisons a row, and all but a few rows lie outside it.
    near = np.flatnonzero((exit_N >= other_start_M.min()) & (start_N <= other_exit_M.max()))
    n_begun = np.searchsorted(np.sort(other_start_M), exit_N[near], side="right")
    n_over = np.searchsorted(np.sort(other_exit_M), start_N[near], side="left")
    found_N[near] = n_begun > n_over
    return found_N


def check_intervals(as_of_N: Times, start_N: Times, exit_N: Times) -> None:
    """Refuse rows that are out of order, or whose interval does not hold their as-of time.

    Raises
    ------
    DataError
        It names the first such row.
    """
    if not as_of_N.ndim == start_N.ndim == exit_N.ndim == 1 or not (
        len(as_of_N) == len(start_N) == len(exit_N)
    ):
        raise DataError(
            f"as-of, start and exit times have shapes {as_of_N.shape}, {start_N.shape} and "
            f"{exit_N.shape}, expected three vectors of one length"
        )
    if (back := as_of_N[1:] < as_of_N[:-1]).any():
        row = int(back.argmax()) + 1
        raise DataError(
            f"row {row} was decided at {as_of_N[row]}, before row {row - 1} at "
            f"{as_of_N[row - 1]}: sort the rows by as-of time"
        )
    if (bad := (start_N > as_of_N) | (as_of_N > exit_N)).any():
        row = int(bad.argmax())
        raise DataError(
            f"row {row} stands for {start_N[row]} to {exit_N[row]}, which does not hold its as-of "
            f"time {as_of_N[row]}: expected start <= as-of <= exit"
        )
