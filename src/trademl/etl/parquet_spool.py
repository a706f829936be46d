"""Parquet decoded once into a file of plain rows, by as many processes as there are.

Shape letters: N rows, C columns, label first.

Parquet holds columns, compressed by row groups of thousands of rows: to shuffle rows finer than
that, each group would have to be decoded again and again. So the processes of a host decode it
once, each its share, into one file that all of them map into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trademl.errors import DataError
from trademl.etl.parquet_table import LABEL, ParquetRows
from trademl.etl.tables import format_of
from trademl.store.artifacts import storage_errors


def needs_spool(paths: Sequence[Path]) -> bool:
    """Return whether files must be decoded before their rows can be pointed at."""
    return not paths[0].is_dir() and format_of(paths[0]) == "parquet"


def spooled(folder: Path) -> Path:
    """Return the file of decoded rows in a folder."""
    return folder / "rows.npy"


def make_spool(paths: Sequence[Path], folder: Path) -> None:
    """Make the file of decoded rows, all zero; one process does, before any of them fills it.

    Raises
    ------
    CodecError, DataError
        If a file's footer is damaged, or the files differ in columns or have no label.
    """
    files = [ParquetRows(path) for path in paths]
    columns = files[0].columns
    for path, file in zip(paths, files, strict=True):
        if LABEL not in file.columns:
            raise DataError(f"{path} has no column {LABEL}: a network is trained on labelled rows")
        if file.columns != columns:
            raise DataError(f"{path} has other columns than {paths[0]}")
    shape = (sum(file.n_rows for file in files), len(columns))
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(spooled(folder), "w+", np.float32, shape=shape).flush()


def fill_spool(paths: Sequence[Path], folder: Path, *, part: int, n_parts: int) -> None:
    """Decode every ``n_parts``-th row group, from number ``part`` on.

    Raises
    ------
    CodecError
        If a row group is damaged; the message names its rows.
    """
    table_NC = np.load(spooled(folder), mmap_mode="r+")
    first_row = first_group = 0
    for path in paths:
        file = ParquetRows(path)
        mine = [g for g in range(file.n_groups) if (first_group + g) % n_parts == part]
        for start, features_MD, label_M in file.groups(mine):
            rows = slice(first_row + start, first_row + start + len(features_MD))
            table_NC[rows, 0], table_NC[rows, 1:] = label_M, features_MD
        first_row, first_group = first_row + file.n_rows, first_group + file.n_groups
    table_NC.flush()
