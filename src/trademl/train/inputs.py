"""What training reads, checked before any work is done.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import ConfigError, DataError
from trademl.etl.dataset import Split
from trademl.train.determinism import Stream, generator
from trademl.train.hyperparameters import LinearLearnerParameters


def check_inputs(
    splits: Mapping[str, Split], parameters: LinearLearnerParameters, names: tuple[str, ...]
) -> None:
    """Refuse data that no model can be trained on.

    Raises
    ------
    ConfigError
        If ``feature_dim`` is not the width of the data.
    DataError
        If a split is empty or of another width, holds a feature that is not finite or a label that
        ``predictor_type`` does not know, or train holds one class alone; the message names
        split, row and column.
    """
    width = splits["train"].features_ND.shape[1]
    if parameters.feature_dim not in (None, width):
        raise ConfigError(f"feature_dim is {parameters.feature_dim}, the data have {width} columns")
    if len(names) != width:
        raise DataError(f"{len(names)} names of columns for data of {width} columns")
    for name, split in splits.items():
        if len(split) == 0:
            raise DataError(f"the {name} split has no rows")
        if split.features_ND.shape[1] != width:
            raise DataError(f"{name} has {split.features_ND.shape[1]} columns, train has {width}")
        _check_labels(name, split.label_N, parameters)
        _check_features(name, split.features_ND, names)
    if parameters.predictor_type != "regressor":
        _check_classes(splits["train"], parameters)


def _check_labels(name: str, label_N: NDArray[Any], parameters: LinearLearnerParameters) -> None:
    if parameters.predictor_type == "regressor":
        is_wrong_N, expected = ~np.isfinite(label_N), "a finite number"
    elif parameters.predictor_type == "binary_classifier":
        is_wrong_N, expected = ~np.isin(label_N, (0.0, 1.0)), "0 or 1"
    else:
        n = parameters.num_classes
        is_wrong_N = ~((label_N >= 0) & (label_N < n) & (label_N == np.floor(label_N)))
        expected = f"a class from 0 to {n - 1}, by num_classes"
    if is_wrong_N.any():
        row = int(np.flatnonzero(is_wrong_N)[0])
        raise DataError(f"label of {name} row {row} is {label_N[row]}, expected {expected}")


def _check_features(name: str, features_ND: NDArray[Any], names: tuple[str, ...]) -> None:
    if np.isfinite(features_ND.sum()):  # a sum is finite only if all of it is
        return
    for row, features_D in enumerate(features_ND):
        if not (is_finite_D := np.isfinite(features_D)).all():
            column = names[int(np.flatnonzero(~is_finite_D)[0])]
            raise DataError(f"{column} of {name} row {row} is not finite: drop the row")


def _check_classes(train: Split, parameters: LinearLearnerParameters) -> None:
    """Refuse a single class in train.

    Held-out rows without a positive are a market in which nothing earned: that is an answer, not
    an error. The threshold is then the nearest to its target, and the model says so.
    """
    if len(found := np.unique(train.label_N)) == 1:
        raise DataError(
            f"every label of train is {found[0]:g}: a {parameters.predictor_type} needs rows of "
            "at least two classes"
        )


def sample_rows(n: int, n_sampled: int, seed: int) -> Any:
    """Return which of ``n`` rows calibrate: up to ``n_sampled`` without replacement, in order."""
    if n <= n_sampled:
        return slice(None)
    return np.sort(generator(seed, Stream.CALIBRATION).choice(n, n_sampled, replace=False))
