"""Find the first price outside a band by a pyramid of minima and maxima, 8 wide.

The band is left where a price falls to its lower edge or rises to its upper one; a bar does so with
its low and its high. A search looks at what is left of its own block of 8 prices, climbs while
whole blocks stay inside the band, and descends into the first that does not: O(log P) for P prices,
however far away the answer is.

Shape letters: P prices, M blocks of all levels, N searches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

SHIFT = 3  # 2**3 wide: measured faster than 16, 32 and 64
LAST_IN_BLOCK = 2**SHIFT - 1


class Pyramid(NamedTuple):
    """Lowest and highest price of every block; level 1 stands on the prices themselves.

    Parameters
    ----------
    lowest, highest : ndarray of float64, shape (P,)
        What is searched: one array of prices given twice, or the lows and highs of bars. NaN lies
        outside no band.
    low, high : ndarray of float64, shape (M,)
        Extremes of each block, level after level.
    start : ndarray of int64
        Where each level starts in ``low`` and ``high``, from level 1 on, and where the last ends.
    """

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    start: NDArray[np.int64]


def build_pyramid(lowest: NDArray[np.float64], highest: NDArray[np.float64]) -> Pyramid:
    """Return the pyramid of P prices: one pass over them, and two sevenths of their memory."""
    sizes = [_n_blocks(len(lowest))]
    while sizes[-1] > LAST_IN_BLOCK + 1:
        sizes.append(_n_blocks(sizes[-1]))
    start = np.cumsum([0, *sizes])
    low, high = np.empty(start[-1]), np.empty(start[-1])
    _fill_level(lowest, highest, low[: sizes[0]], high[: sizes[0]])
    for level in range(1, len(sizes)):
        below, here = slice(*start[level - 1 : level + 1]), slice(*start[level : level + 2])
        _fill_level(low[below], high[below], low[here], high[here])
    return Pyramid(lowest, highest, low, high, start)


def _n_blocks(n: int) -> int:
    return -(-n >> SHIFT)


@njit(cache=True, nogil=True)
def _fill_level(low_below, high_below, low, high):  # type: ignore[no-untyped-def]
    for block in range(len(low)):
        lowest, highest = np.inf, -np.inf
        for k in range(block << SHIFT, min((block + 1) << SHIFT, len(low_below))):
            lowest = low_below[k] if low_below[k] < lowest else lowest  # NaN is passed over
            highest = high_below[k] if high_below[k] > highest else highest
        low[block], high[block] = lowest, highest


@njit(cache=True, nogil=True)
def first_outside(pyramid: Pyramid, start: int, lower: float, upper: float) -> int:
    """Return the index of the first price at or after ``start`` that is outside the band.

    Parameters
    ----------
    start : int
        First index looked at, up to P.
    lower, upper : float
        Edges of the band; a price on an edge is outside.

    Returns
    -------
    int
        P where every price is inside.
    """
    lowest, highest, low, high = pyramid.lowest, pyramid.highest, pyramid.low, pyramid.high
    for k in range(start, min((start | LAST_IN_BLOCK) + 1, len(lowest))):
        if lowest[k] <= lower or highest[k] >= upper:
            return k
    block, level = (start >> SHIFT) + 1, 0
    while True:
        first, stop = pyramid.start[level], pyramid.start[level + 1]
        here = first + block
        end = min(first + (block | LAST_IN_BLOCK) + 1, stop)
        while here < end and low[here] > lower and high[here] < upper:
            here += 1
        if here < end:
            break
        if end == stop:
            return len(lowest)
        block, level = (here - first) >> SHIFT, level + 1
    while level > 0:
        block, level = here - pyramid.start[level], level - 1
        here = pyramid.start[level] + (block << SHIFT)
        while low[here] > lower and high[here] < upper:
            here += 1
    k = int(here - pyramid.start[0]) << SHIFT
    while not (lowest[k] <= lower or highest[k] >= upper):
        k += 1
    return k


@njit(cache=True, nogil=True)
def first_outside_each(  # type: ignore[no-untyped-def]
    pyramid, is_wanted_N, start_N, lower_N, upper_N, found_N
):
    """Write where the band of each wanted row is left, or P."""
    for n in range(len(start_N)):
        if is_wanted_N[n]:
            found_N[n] = first_outside(pyramid, start_N[n], lower_N[n], upper_N[n])
