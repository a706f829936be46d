"""Labelled rows as CSV, the way SageMaker's built-in algorithms take it.

Shape letters: N rows, D features.

One line a row: the label first where there is one, then the features; no header, no quotes. A
number is the shortest decimal that reads back as the same float32. NaN and infinities are written
as ``nan``, ``inf`` and ``-inf``, which SageMaker does not take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError, DataError
from trademl.etl._columns import ColumnsWriter

Floats = NDArray[np.float32]

BLOCK_BYTES = 2 * 1024 * 1024  # of float32; its text is up to four times as long
MAX_FIELD_BYTES = 64  # room for a number that another program wrote with all its digits

_FIELD_COUNT = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
_NOT_A_NUMBER = re.compile(r"column #(\d+): Row #(\d+): .*invalid value '(.*)'", re.DOTALL)


class CsvWriter(ColumnsWriter):
    """Write lines block by block, in memory that does not grow with their number.

    Use it as a context manager: the file appears under its name when the ``with`` block ends, and
    not at all where it raises.

    Parameters
    ----------
    path : Path
        File to write; until it is complete it is called ``<path>.part``.
    feature_dim : int
        D, at least 1.
    with_label : bool
        Whether every line begins with a label, or none does.

    Raises
    ------
    DataError
        If ``feature_dim`` is out of range, or if the ``with`` block ends without a row.
    """

    def __init__(self, path: Path, feature_dim: int, *, with_label: bool) -> None:
        super().__init__(path, feature_dim, with_label=with_label, block_bytes=BLOCK_BYTES)

    def _open(self, part: Path) -> None:
        import pyarrow as pa
        from pyarrow import csv

        names = map(str, range(self._feature_dim + self._with_label))
        self._schema = pa.schema([(name, pa.float32()) for name in names])
        options = csv.WriteOptions(include_header=False, quoting_style="none")
        file = self._files.enter_context(part.open("wb"))
        self._writer = self._files.enter_context(
            csv.CSVWriter(file, self._schema, write_options=options)
        )


def read_csv(path: Path, *, with_label: bool = True) -> tuple[Floats, Floats | None]:
    """Return the features and labels of a file of lines; it is never held whole as text.

    Parameters
    ----------
    path : Path
        Numbers without a header, as many on each line. A number too large for float32 reads as an
        infinity.
    with_label : bool
        Whether the first number of a line is its label: the file does not say.

    Returns
    -------
    features_ND : ndarray of float32, shape (N, D)
    label_N : ndarray of float32, shape (N,), or None

    Raises
    ------
    CodecError
        If the file is empty, cut or damaged; the message names the line, from 1.
    DataError
        If the file cannot be opened.
    """
    try:
        n_rows, n_fields = _count(path)
        if n_fields < 1 + with_label:
            raise CodecError(f"{path}: line 1: 1 field, expected a label and features")
        features_ND = np.empty((n_rows, n_fields - with_label), np.float32)
        label_N = np.empty(n_rows, np.float32) if with_label else None
        start = 0
        for block_FB in field_blocks(path, n_fields):
            stop = start + block_FB.shape[1]
            if stop > n_rows:
                raise CodecError(f"{path}: more rows than lines: a carriage return is inside one")
            features_ND[start:stop] = block_FB[int(with_label) :].T
            if label_N is not None:
                label_N[start:stop] = block_FB[0]
            start = stop
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return features_ND, label_N


def _count(path: Path) -> tuple[int, int]:
    """Return how many lines a file has, and how many fields the first."""
    n_lines, last = 0, b""
    with path.open("rb") as file:
        n_fields = file.readline().count(b",") + 1
        file.seek(0)
        while chunk := file.read(BLOCK_BYTES):
            n_lines += chunk.count(b"\n")
            last = chunk[-1:]
    if not last:
        raise CodecError(f"{path} holds no rows")
    if last != b"\n":
        raise CodecError(f"{path}: line {n_lines + 1}: has no end, the file was cut short")
    return n_lines, n_fields


def field_blocks(path: Path, n_fields: int) -> Iterator[Floats]:
    """Yield the numbers of consecutive lines, one row for each field."""
    import pyarrow as pa
    from pyarrow import csv

    names = [str(field) for field in range(n_fields)]
    n_lines = 0
    with (
        _faults_of(path),
        csv.open_csv(
            path,
            # One thread: with more of them, messages do not say which line.
            csv.ReadOptions(
                use_threads=False,
                column_names=names,
                block_size=max(2 * BLOCK_BYTES, MAX_FIELD_BYTES * n_fields),
            ),
            csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types={name: pa.float32() for name in names}, null_values=[""]
            ),
        ) as reader,
    ):
        for batch in reader:
            for field, column in enumerate(batch.columns, 1):
                if column.null_count:
                    line = n_lines + column.is_null().index(True).as_py() + 1
                    raise CodecError(f"{path}: line {line}: field {field} is empty")
            n_lines += batch.num_rows
            yield np.stack([column.to_numpy() for column in batch.columns])


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Say in one line what pyarrow found wrong with a file, and where."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        message = str(error)
        if found := _FIELD_COUNT.search(message):
            line, expected, n = found.groups()
            message = f"line {line}: {n} fields, expected {expected} as on line 1"
        elif found := _NOT_A_NUMBER.search(message):
            field, line, text = found.groups()
            message = f"line {line}: field {int(field) + 1} is {text[:40]!r}, expected a number"
        else:
            message = message.splitlines()[0][:200]
        raise CodecError(f"{path}: {message}") from error
