"""The losses of Linear Learner, one value per row, in the units of the label.

Shape letters: N rows, C scores of a row (1 but for softmax). `kernels` holds the same losses with
their derivatives, compiled; a test compares both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def row_losses(name: str, shape: float, label_N: NDArray[Any], score_CN: NDArray[Any]) -> Floats:
    """Return each row's loss, every row weighing 1.

    Parameters
    ----------
    name : str
        A value of the hyperparameter ``loss`` other than auto.
    shape : float
        Its margin, quantile, delta or insensitivity; see `engine.loss_shape`.
    label_N : ndarray of shape (N,)
        0 or 1, a class, or a number.
    score_CN : ndarray of shape (C, N)
        Before sigmoid or softmax; predicted labels of a regression.

    Notes
    -----
    Huber's loss is ``e**2 / (2 delta)`` up to an error of delta and ``abs(e) - delta / 2`` beyond,
    as in MXNet, on which the original is built; with a delta of 0 it is the absolute error.
    """
    label_N = np.asarray(label_N, dtype=np.float64)
    score_CN = np.asarray(score_CN, dtype=np.float64)
    if name == "softmax_loss":
        largest_N = score_CN.max(axis=0)
        total_N = np.log(np.exp(score_CN - largest_N).sum(axis=0)) + largest_N
        own_N = score_CN[label_N.astype(np.int64), np.arange(len(label_N))]
        losses_N: Floats = total_N - own_N
        return losses_N
    score_N = score_CN[0]
    if name == "logistic":
        return np.asarray(np.logaddexp(0.0, score_N) - label_N * score_N, np.float64)
    if name == "hinge_loss":
        lack_N: Floats = shape - (2.0 * label_N - 1.0) * score_N
        return np.maximum(lack_N, 0.0)
    return _regression(name, shape, score_N - label_N)


def _regression(name: str, shape: float, error_N: Floats) -> Floats:
    size_N = np.abs(error_N)
    if name == "squared_loss":
        return np.square(error_N)
    if name == "absolute_loss":
        return size_N
    if name == "eps_insensitive_squared_loss":
        return np.maximum(size_N - shape, 0.0) ** 2
    if name == "eps_insensitive_absolute_loss":
        return np.maximum(size_N - shape, 0.0)
    if name == "quantile_loss":
        return size_N * np.where(error_N > 0.0, 1.0 - shape, shape)
    is_large_N = size_N > shape
    return np.where(is_large_N, size_N - 0.5 * shape, 0.5 * error_N**2 / max(shape, 1e-300))
