"""Normalisation of features and labels, learnt from training rows alone.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.etl.row_source import RowSource
from trademl.train.determinism import Stream, generator
from trademl.train.hyperparameters import LinearLearnerParameters

NETWORK_ROWS = 10_000  # that a network's scaler is fitted on, at most


@dataclass(frozen=True)
class Scaler:
    """What each feature is shifted and divided by, float64 of shape (D,)."""

    mean_D: NDArray[np.float64]
    scale_D: NDArray[np.float64]


@dataclass(frozen=True)
class LabelScaler:
    """What the label of a regression is shifted and divided by; 0 and 1 for a classifier."""

    mean: float = 0.0
    scale: float = 1.0

    def unit(self, loss: str) -> float:
        """Return what a length on the label's axis is divided by; a share has no unit."""
        return 1.0 if loss == "quantile_loss" else self.scale

    def loss_unit(self, loss: str) -> float:
        """Return what a loss of scaled labels is multiplied by to be one of the labels."""
        is_squared = loss in ("squared_loss", "eps_insensitive_squared_loss")
        return self.scale**2 if is_squared else self.scale


def fit_network_scaler(rows: RowSource) -> Scaler:
    """Return mean and standard deviation of up to 10,000 rows, spread evenly over all of them.

    A constant column is scaled by 1.
    """
    n = min(len(rows), NETWORK_ROWS)
    found_ND, _ = rows.read(np.arange(n, dtype=np.int64) * len(rows) // n)
    features_ND = np.ascontiguousarray(found_ND)  # sums in one order, whatever file they lay in
    scale_D = features_ND.std(axis=0, dtype=np.float64)
    is_constant_D = features_ND.max(axis=0) == features_ND.min(axis=0)
    scale_D[is_constant_D | (scale_D < np.finfo(np.float32).tiny)] = 1.0
    return Scaler(features_ND.mean(axis=0, dtype=np.float64), scale_D)


def fit_scaler(
    features_ND: NDArray[np.float32], parameters: LinearLearnerParameters, *, seed: int
) -> Scaler:
    """Return mean and standard deviation of up to ``num_point_for_scaler`` rows.

    Features are shifted where ``normalize_data`` or ``unbias_data`` holds, and scaled where
    ``normalize_data`` does. A constant column is scaled by 1.
    """
    d = features_ND.shape[1]
    features_ND = features_ND[sample(len(features_ND), parameters, seed=seed)]
    is_shifted = shifts_features(parameters)
    mean_D = features_ND.mean(axis=0, dtype=np.float64) if is_shifted else np.zeros(d)
    if not parameters.normalize_data:
        return Scaler(mean_D, np.ones(d))
    # equal values can have a standard deviation of rounding dust: compare the values themselves
    is_constant_D = features_ND.max(axis=0) == features_ND.min(axis=0)
    std_D = features_ND.std(axis=0, dtype=np.float64)
    is_constant_D |= std_D < np.finfo(np.float32).tiny
    return Scaler(mean_D, np.where(is_constant_D, 1.0, std_D))


def shifts_features(parameters: LinearLearnerParameters) -> bool:
    """Return whether features are shifted to a mean of zero."""
    unbias = parameters.use_bias if parameters.unbias_data is None else parameters.unbias_data
    return parameters.normalize_data or unbias


def fit_label_scaler(
    label_N: NDArray[np.float32], parameters: LinearLearnerParameters, *, seed: int
) -> LabelScaler:
    """Return mean and standard deviation of the labels of the same rows as `fit_scaler` reads.

    A regression's labels are scaled where ``normalize_label`` holds and shifted where
    ``unbias_label`` does; classes are left alone.
    """
    if parameters.predictor_type != "regressor":
        return LabelScaler()
    label_N = np.asarray(label_N)[sample(len(label_N), parameters, seed=seed)]
    mean = float(label_N.mean(dtype=np.float64)) if parameters.unbias_label else 0.0
    std = float(label_N.std(dtype=np.float64))
    is_scaled = parameters.normalize_label and label_N.max() > label_N.min() and std > 0.0
    return LabelScaler(mean, std if is_scaled else 1.0)


def sample(n: int, parameters: LinearLearnerParameters, *, seed: int) -> Any:
    """Return which of ``n`` rows the scalers read: up to ``num_point_for_scaler``, in order."""
    if n <= parameters.num_point_for_scaler:
        return slice(None)
    rng = generator(seed, Stream.SCALER)
    return np.sort(rng.choice(n, parameters.num_point_for_scaler, replace=False))
