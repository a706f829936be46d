"""Read rows of features from a file, to ask a server about them.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl.recordio import read_recordio

ENDINGS = (".recordio", ".csv")


def read_feature_file(path: Path) -> NDArray[np.float32]:
    """Return the rows of a RecordIO or CSV file; labels in RecordIO are left out.

    Raises
    ------
    DataError
        If there is no such file, its name ends otherwise, or it is no table of numbers.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give rows of features as .recordio or .csv")
    if path.suffix not in ENDINGS:
        raise DataError(
            f"{path} ends in {path.suffix or 'nothing'}: a server is asked about "
            f"{' or '.join(ENDINGS)}; trademl predict --batch scores .parquet, .jsonl and .gz too"
        )
    if path.suffix == ".recordio":
        return read_recordio(path)[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, which is an error below
            rows_ND = np.loadtxt(path, dtype=np.float32, delimiter=",", ndmin=2)
    except ValueError as error:
        raise DataError(
            f"{path}: {str(error).partition(';')[0]}; expected numbers, comma separated, as "
            "many in every row, without header and label"
        ) from error
    if rows_ND.size == 0:
        raise DataError(f"{path}: holds no rows; expected numbers, comma separated")
    return rows_ND
