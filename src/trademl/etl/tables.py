"""One split of a dataset as a file of labelled rows, in the format that its name ends in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl._writer import BlockWriter
from trademl.etl.csv_table import CsvWriter, read_csv
from trademl.etl.parquet_table import ParquetWriter, read_parquet
from trademl.etl.recordio import RecordWriter, read_recordio

Floats = NDArray[np.float32]
TableFormat = Literal["recordio", "csv", "parquet"]

_FORMAT_OF_ENDING: dict[str, TableFormat] = {
    ".recordio": "recordio",
    ".csv": "csv",
    ".parquet": "parquet",
}


def table_writer(
    path: Path, columns: Sequence[str], *, with_label: bool = True, n_workers: int = 1
) -> BlockWriter:
    """Return the writer of a file; use it as a context manager.

    Parameters
    ----------
    path : Path
        Ends in ``.recordio``, ``.recordio.gz``, ``.csv`` or ``.parquet``.
    columns : sequence of str
        Names of the features, in order; only Parquet keeps them.
    with_label : bool
        Whether every row carries a label, or none does.
    n_workers : int
        See `RecordWriter`; the other formats pass it over.

    Raises
    ------
    DataError
        If the name ends in something else.
    """
    table_format = format_of(path)
    if table_format == "parquet":
        return ParquetWriter(path, columns, with_label=with_label)
    if table_format == "csv":
        return CsvWriter(path, len(columns), with_label=with_label)
    return RecordWriter(path, len(columns), with_label=with_label, n_workers=n_workers)


def read_table(path: Path, *, with_label: bool = True) -> tuple[Floats, Floats | None]:
    """Return the features, shape (N, D), and the labels, shape (N,) or None, of a file.

    Parameters
    ----------
    path : Path
        As `table_writer` takes it.
    with_label : bool
        Whether a file of CSV begins its lines with a label; the other formats say so themselves.

    Raises
    ------
    CodecError
        If the file is empty, cut or damaged.
    DataError
        If the file cannot be opened, or its name ends in something else.
    """
    table_format = format_of(path)
    if table_format == "parquet":
        return read_parquet(path)
    if table_format == "csv":
        return read_csv(path, with_label=with_label)
    return read_recordio(path)


def format_of(path: Path) -> TableFormat:
    """Return the format that a file's name says.

    Raises
    ------
    DataError
        If it says none.
    """
    if found := _FORMAT_OF_ENDING.get(path.suffix):
        return found
    if path.name.endswith(".recordio.gz"):
        return "recordio"
    raise DataError(
        f"{path}: ends in {path.suffix or 'nothing'}, expected "
        f"{', '.join(_FORMAT_OF_ENDING)} or .recordio.gz"
    )
