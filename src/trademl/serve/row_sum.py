"""What takes all features of a row: whether they are finite, their sum, their score. Compiled.

The sum is numpy's bit for bit. numpy adds in halves (pairwise summation, in blocks of 128 by eight
sums). A row alone must get the score that it gets in a batch, so the order is the same here. What
numpy does around 605 products costs more than they do.

The exponential function is not numpy's, and may differ from it in the last places of a float64. A
score of which that could change the float32 is not given.

Shape letters: N rows, D feature columns, T tasks, S sums.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_BLOCK, _SUMS = 128, 8
_DEEP, _ADD = 128, -1  # halves of halves, of any length; a task to add two sums
_LOW_BITS = np.uint64(2**29 - 1)  # of a float64, those that a float32 has no room for
_MIDDLE = np.int64(2**28)
_DOUBT = 16  # units in the last place: four roundings of either side, and as much again
_SMALLEST = 1.2e-38  # below it a float32 has fewer digits, and other middles


@njit(cache=True)
def sum_of_products(row_D: Any, weights_D: Any) -> float:
    """Return what the products add up to, in float64.

    Examples
    --------
    >>> sum_of_products(np.float32([1, 2, 3]), np.array([0.5, 0.25, 2.0]))
    7.0
    """
    # no recursion: numba's cache loses the address of a kernel that calls itself
    start_T, n_T, sum_S = np.empty(_DEEP, np.int64), np.empty(_DEEP, np.int64), np.empty(_DEEP)
    start_T[0], n_T[0] = 0, len(row_D)
    n_tasks, n_sums = 1, 0
    while n_tasks:
        n_tasks -= 1
        start, n = start_T[n_tasks], n_T[n_tasks]
        if n == _ADD:
            n_sums -= 1
            sum_S[n_sums - 1] += sum_S[n_sums]
        elif n <= _BLOCK:
            sum_S[n_sums] = _sum_of_block(row_D, weights_D, start, n)
            n_sums += 1
        else:  # the left half first, then the right one, then add them
            half = n // 2
            half -= half % _SUMS
            n_T[n_tasks] = _ADD
            start_T[n_tasks + 1], n_T[n_tasks + 1] = start + half, n - half
            start_T[n_tasks + 2], n_T[n_tasks + 2] = start, half
            n_tasks += 3
    return float(sum_S[0])


@njit(cache=True)
def _sum_of_block(row_D: Any, weights_D: Any, start: int, n: int) -> float:
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
def score_row(row_D: Any, weights_D: Any, offset: float, is_logistic: bool) -> float:
    """Return a linear model's score of a row as a float32 holds it, or NaN.

    NaN where a feature or their sum is not finite, and where the last bit is in doubt.

    Examples
    --------
    >>> score_row(np.float32([1, 2, 3]), np.array([0.5, 0.25, 2.0]), -7.0, True)
    0.5
    """
    total = sum_of_products(row_D, weights_D) + offset
    if not math.isfinite(total):
        return math.nan
    if not is_logistic:
        return float(np.float32(total))
    decay = math.exp(-abs(total))
    score = (1.0 if total >= 0 else decay) / (1.0 + decay)
    low_bits = np.float64(score).view(np.uint64) & _LOW_BITS
    is_sure = score > _SMALLEST and abs(np.int64(low_bits) - _MIDDLE) > _DOUBT
    return float(np.float32(score)) if is_sure else math.nan


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
        score_row(row_D, weights_D, 0.0, True)
        is_finite(row_D.reshape(1, 1))


KERNELS = (score_row, is_finite)  # that `warm_up` has compiled
