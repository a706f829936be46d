"""Ridge regression on standardised features, its penalty chosen on later rows.

Shape letters: N rows, D features, V validation rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PENALTIES = (
    1e-3,
    1e-2,
    1e-1,
    1.0,
    10.0,
    100.0,
)  # a row; at the last one little but the mean is left


@dataclass(frozen=True)
class Ridge:
    """A linear model of standardised features.

    Parameters
    ----------
    mean_D, std_D : ndarray of float64
        Of the training rows; a feature that never changed has a deviation of 1.
    weight_D : ndarray of float64
    intercept : float
    penalty : float
        The one that was chosen, for each row.
    validation_gain : float
        Share of the validation rows' squared error that the model takes off their forecast by the
        training mean; below 0 it is worse than that mean.
    """

    mean_D: NDArray[np.float64]
    std_D: NDArray[np.float64]
    weight_D: NDArray[np.float64]
    intercept: float
    penalty: float
    validation_gain: float

    def predict(self, features_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the forecast of each row, shape (N,)."""
        z_ND = (features_ND - self.mean_D) / self.std_D
        return np.asarray(z_ND @ self.weight_D + self.intercept, np.float64)


def fit_ridge(
    features_ND: NDArray[np.floating],
    target_N: NDArray[np.float64],
    features_VD: NDArray[np.floating],
    target_V: NDArray[np.float64],
    *,
    penalties: Sequence[float] = PENALTIES,
) -> Ridge:
    """Fit on the training rows with each penalty, keep the one with the least validation error.

    Notes
    -----
    Causal as its rows are: the caller purges those whose target overlaps the validation rows.
    """
    x_ND = np.asarray(features_ND, np.float64)
    mean_D, std_D = x_ND.mean(axis=0), x_ND.std(axis=0)
    std_D[std_D == 0] = 1.0
    z_ND, z_VD = (x_ND - mean_D) / std_D, (features_VD - mean_D) / std_D
    intercept = float(target_N.mean())
    gram_DD = z_ND.T @ z_ND / len(z_ND)
    moment_D = z_ND.T @ (target_N - intercept) / len(z_ND)
    found = []
    for penalty in penalties:
        weight_D = np.linalg.solve(gram_DD + penalty * np.eye(len(gram_DD)), moment_D)
        error = float(((z_VD @ weight_D + intercept - target_V) ** 2).mean())
        found.append((error, penalty, weight_D))
    error, penalty, weight_D = min(found, key=lambda one: one[0])
    of_mean = float(((intercept - target_V) ** 2).mean())
    gain = 1.0 - error / of_mean if of_mean > 0 else 0.0
    return Ridge(mean_D, std_D, weight_D, intercept, penalty, gain)
