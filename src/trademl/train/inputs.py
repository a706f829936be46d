"""What training reads, checked before any work is done.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
        If a split is empty or of another width, or holds a feature that is not finite or a label
        other than 0 and 1; the message names split, row and column.
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
        if (other := ~np.isin(split.label_N, (0.0, 1.0))).any():
            row = int(np.flatnonzero(other)[0])
            raise DataError(f"label of {name} row {row} is {split.label_N[row]}, expected 0 or 1")
        if not (finite := np.isfinite(split.features_ND)).all():
            row, column = np.argwhere(~finite)[0]
            raise DataError(f"{names[column]} of {name} row {row} is not finite: drop the row")


def sample_rows(split: Split, n_rows: int, seed: int) -> Split:
    """Return up to ``n_rows`` rows drawn without replacement, in their order."""
    if len(split) <= n_rows:
        return split
    chosen = generator(seed, Stream.CALIBRATION).choice(len(split), n_rows, replace=False)
    rows = np.sort(chosen)
    return Split(**{name: column[rows] for name, column in vars(split).items()})
