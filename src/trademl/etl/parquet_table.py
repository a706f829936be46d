"""Labelled rows as Parquet: a float32 column for each feature, under its name in the schema.

Shape letters: N rows, D features.

A row group is a block of rows, and every page carries a checksum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError, DataError
from trademl.etl._columns import ColumnsWriter

Floats = NDArray[np.float32]

LABEL = "label"
BLOCK_BYTES = 16 * 1024 * 1024  # smaller row groups of 600 columns are mostly heads of pages


class ParquetWriter(ColumnsWriter):
    """Write row groups block by block, in memory that does not grow with the number of rows.

    Use it as a context manager: the file appears under its name when the ``with`` block ends, and
    not at all where it raises.

    Parameters
    ----------
    path : Path
        File to write; until it is complete it is called ``<path>.part``.
    columns : sequence of str
        Names of the D features, in order.
    with_label : bool
        Whether the first column is ``label``.

    Raises
    ------
    DataError
        If two columns share a name, or if the ``with`` block ends without a row.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, with_label: bool) -> None:
        super().__init__(path, len(columns), with_label=with_label, block_bytes=BLOCK_BYTES)
        self._names = [LABEL, *columns] if with_label else list(columns)
        if LABEL in columns or len(set(columns)) < len(columns):
            name = next(n for n, count in Counter([LABEL, *columns]).items() if count > 1)
            raise DataError(f"{path}: two columns are called {name}, expected different names")

    def _open(self, part: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema([pa.field(n, pa.float32(), nullable=False) for n in self._names])
        file = self._files.enter_context(part.open("wb"))
        self._writer = self._files.enter_context(
            pq.ParquetWriter(file, self._schema, compression="zstd", write_page_checksum=True)
        )


def read_parquet(path: Path) -> tuple[Floats, Floats | None]:
    """Return the features and labels of a file, read row group by row group.

    Parameters
    ----------
    path : Path
        Columns of float32: ``label``, where there is one, and the features in order.

    Returns
    -------
    features_ND : ndarray of float32, shape (N, D)
    label_N : ndarray of float32, shape (N,), or None

    Raises
    ------
    CodecError
        If the file is empty, cut or damaged; the message names the rows, from 0.
    DataError
        If the file cannot be opened, or a column is not float32.
    """
    file = ParquetRows(path)
    n_features = len(file.columns) - (LABEL in file.columns)
    features_ND = np.empty((file.n_rows, n_features), np.float32)
    label_N = np.empty(file.n_rows, np.float32) if LABEL in file.columns else None
    for start, features_MD, label_M in file.groups():
        features_ND[start : start + len(features_MD)] = features_MD
        if label_N is not None:
            label_N[start : start + len(features_MD)] = label_M
    return features_ND, label_N


class ParquetRows:
    """A file whose footer was read and checked; its rows are read group by group.

    Raises
    ------
    CodecError
        If the file is empty or its footer damaged.
    DataError
        If the file cannot be opened, or a column is not float32.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as parquet:
            _check_columns(path, parquet)
            self.columns: tuple[str, ...] = tuple(parquet.schema_arrow.names)
            self.n_rows = int(parquet.metadata.num_rows)
            self.n_groups = int(parquet.metadata.num_row_groups)

    def groups(
        self, numbers: Collection[int] | None = None
    ) -> Iterator[tuple[int, Floats, Floats | None]]:
        """Yield row groups, all or those of the given numbers: first row, features, labels.

        Raises
        ------
        CodecError
            If a group is damaged; the message names its rows, from 0.
        """
        features = [name for name in self.columns if name != LABEL]
        with self._opened() as parquet:
            for start, table in _row_groups(self._path, parquet, numbers):
                label = table[LABEL].to_numpy() if LABEL in self.columns else None
                yield start, np.stack([table[n].to_numpy() for n in features]).T, label

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow.parquet as pq

        try:
            with self._path.open("rb") as file:
                with _faults_of(self._path, "its head or its footer is damaged or missing"):
                    parquet = pq.ParquetFile(
                        file,
                        pre_buffer=False,  # True keeps all bytes ever read
                        page_checksum_verification=True,
                    )
                    parquet.schema_arrow  # noqa: B018  # a damaged schema shows itself here
                yield parquet
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror}") from error


def _row_groups(
    path: Path, parquet: Any, numbers: Collection[int] | None
) -> Iterator[tuple[int, Any]]:
    start = 0
    for group in range(parquet.metadata.num_row_groups):
        stop = start + parquet.metadata.row_group(group).num_rows
        if numbers is not None and group not in numbers:
            start = stop
            continue
        with _faults_of(path, f"rows {start} to {stop - 1} are damaged"):
            table = parquet.read_row_group(group)
        if table.num_rows != stop - start:
            raise CodecError(
                f"{path}: rows {start} to {stop - 1}: {table.num_rows} rows, expected "
                f"{stop - start}"
            )
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.null_count:
                row = start + column.is_null().index(True).as_py()
                raise CodecError(f"{path}: row {row}: {name} is empty")
        yield start, table
        start = stop


def _check_columns(path: Path, parquet: Any) -> None:
    """Refuse a file that is not N rows of float32, before anything is made for it."""
    n_of_groups = sum(
        parquet.metadata.row_group(g).num_rows for g in range(parquet.metadata.num_row_groups)
    )
    if n_of_groups != parquet.metadata.num_rows:
        raise CodecError(
            f"{path}: its row groups have {n_of_groups} rows, its footer says "
            f"{parquet.metadata.num_rows}"
        )
    if not n_of_groups:
        raise CodecError(f"{path} holds no rows")
    for field in parquet.schema_arrow:
        if str(field.type) != "float":
            raise DataError(f"{path}: column {field.name} is {field.type}, expected float32")
    names = Counter(parquet.schema_arrow.names)
    if twice := [name for name, count in names.items() if count > 1]:
        raise DataError(f"{path}: two columns are called {twice[0]}, expected different names")
    if not names.keys() - {LABEL}:
        raise DataError(f"{path}: no column beside {LABEL}, expected features")


@contextmanager
def _faults_of(path: Path, what: str) -> Iterator[None]:
    """Say in one line what pyarrow found wrong with a file, and where."""
    import pyarrow as pa

    try:
        yield
    # A damaged count or length asks for memory that is not there; a damaged name is not UTF-8.
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise CodecError(f"{path}: {what}: {str(error).splitlines()[0][:200]}") from error
