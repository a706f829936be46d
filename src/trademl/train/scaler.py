"""Normalisation of features, learnt from training rows alone.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.train.determinism import Stream, generator
from trademl.train.hyperparameters import LinearLearnerParameters

_CHUNK = 4096  # rows normalised at once, to bound the memory of their float64 copies


@dataclass(frozen=True)
class Scaler:
    """What each feature is shifted and divided by, float64 of shape (D,)."""

    mean_D: NDArray[np.float64]
    scale_D: NDArray[np.float64]

    def apply(self, features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the normalised features, computed in float64 and rounded once."""
        normalised_ND = np.empty(features_ND.shape, dtype=np.float32)
        for start in range(0, len(features_ND), _CHUNK):
            rows = slice(start, start + _CHUNK)
            normalised_ND[rows] = (features_ND[rows] - self.mean_D) / self.scale_D
        return normalised_ND


def fit_scaler(
    features_ND: NDArray[np.float32], parameters: LinearLearnerParameters, *, seed: int
) -> Scaler:
    """Return mean and standard deviation of up to ``num_point_for_scaler`` rows.

    Features are shifted where ``normalize_data`` or ``unbias_data`` holds, and scaled where
    ``normalize_data`` does. A constant column is scaled by 1.
    """
    n, d = features_ND.shape
    if n > parameters.num_point_for_scaler:
        rng = generator(seed, Stream.SCALER)
        chosen = rng.choice(n, parameters.num_point_for_scaler, replace=False)
        features_ND = features_ND[np.sort(chosen)]
    unbias = parameters.use_bias if parameters.unbias_data is None else parameters.unbias_data
    is_shifted = parameters.normalize_data or unbias
    mean_D = features_ND.mean(axis=0, dtype=np.float64) if is_shifted else np.zeros(d)
    if not parameters.normalize_data:
        return Scaler(mean_D, np.ones(d))
    # equal values can have a standard deviation of rounding dust: compare the values themselves
    is_constant_D = features_ND.max(axis=0) == features_ND.min(axis=0)
    std_D = features_ND.std(axis=0, dtype=np.float64)
    is_constant_D |= std_D < np.finfo(np.float32).tiny
    return Scaler(mean_D, np.where(is_constant_D, 1.0, std_D))
