"""What takes all features of a row: whether they are finite, and their sum of products. Compiled.

The sum is numpy's bit for bit. numpy adds in halves (pairwise summation, in blocks of 128 by eight
sums). A row alone must get the score that it gets in a batch, so the order is the same here. What
numpy does around 605 products costs more than they do.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_BLOCK, _SUMS = 128, 8


@njit(cache=True)
def sum_of_products(row_D: Any, weights_D: Any, start: int, n: int) -> float:
    """Return what ``n`` products from ``start`` on add up to, in float64.

    Examples
    --------
    >>> sum_of_products(np.float32([1, 2, 3]), np.array([0.5, 0.25, 2.0]), 0, 3)
    7.0
    """
    if n > _BLOCK:
        half = n // 2
        half -= half % _SUMS
        left = sum_of_products(row_D, weights_D, start, half)
        return left + sum_of_products(row_D, weights_D, start + half, n - half)
    total, n_eights = 0.0, n - n % _SUMS
    if n_eights:
        s = np.zeros(_SUMS)
        for d in range(start, start + n_eights, _SUMS):
            for k in range(_SUMS):
                s[k] += np.float64(row_D[d + k]) * weights_D[d + k]
        total = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
    for d in range(start + n_eights, start + n):
        total += np.float64(row_D[d]) * weights_D[d]
    return total


@njit(cache=True)
def is_finite(rows_ND: Any) -> bool:
    """Return whether no feature is infinite or NaN.

    Examples
    --------
    >>> is_finite(np.float32([[1, 2]])), is_finite(np.float32([[1, np.inf]]))
    (True, False)
    """
    n_not = 0
    for row_D in rows_ND:
        for feature in row_D:
            n_not += not np.isfinite(feature)
    return n_not == 0


def warm_up() -> None:
    """Compile, or load what was compiled before, for rows of our own and for those of a body."""
    weights_D = np.zeros(1)
    for row_D in (np.zeros(1, np.float32), np.frombuffer(bytes(4), np.float32)):
        sum_of_products(row_D, weights_D, 0, 1)
        is_finite(row_D.reshape(1, 1))
