"""How much evidence labels hold whose lives overlap: average uniqueness.

Shape letters: N labels, T moments at which a label begins or ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_uniqueness(start_N: NDArray[np.int64], end_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return of each label the mean, over its life, of one through the number of labels alive.

    Their sum is the effective sample size: labels of equal length of which c are alive at any time
    have a sum of profits whose variance is c times that of as many that do not overlap.

    Parameters
    ----------
    start_N, end_N : ndarray of int64, shape (N,)
        The life of each label, in any order and any unit of time; the end is not part of it. A
        life of no length counts as one unit.

    Returns
    -------
    ndarray of float64, shape (N,)
        Above 0, at most 1; 1 where no other label is ever alive beside it.

    Notes
    -----
    O(N log N): the integral of one through the concurrency, at the two ends of each life. Source:
    Lopez de Prado (2018), "Advances in Financial Machine Learning", sections 4.3 and 4.4.

    Examples
    --------
    >>> average_uniqueness(np.array([0, 1]), np.array([2, 3]))
    array([0.75, 0.75])
    """
    if len(start_N) == 0:
        return np.empty(0)
    end_N = np.maximum(end_N, start_N + 1)
    moment_T, place_2N = np.unique(np.concatenate([start_N, end_N]), return_inverse=True)
    begins_N, ends_N = place_2N[: len(start_N)], place_2N[len(start_N) :]
    n_moments = len(moment_T)
    n_alive_T = np.cumsum(
        np.bincount(begins_N, minlength=n_moments) - np.bincount(ends_N, minlength=n_moments)
    )
    share_T = np.diff(moment_T) / np.maximum(n_alive_T[:-1], 1)
    integral_T = np.concatenate([[0.0], np.cumsum(share_T)])
    uniqueness_N: NDArray[np.float64] = (integral_T[ends_N] - integral_T[begins_N]) / (
        end_N - start_N
    )
    return uniqueness_N


def effective_size(start_N: NDArray[np.int64], end_N: NDArray[np.int64]) -> float:
    """Return how many labels without overlap hold as much evidence: the sum of uniqueness."""
    return float(average_uniqueness(start_N, end_N).sum())
