"""Rows of a file read block by block, whatever its format, in memory that does not grow with them.

Shape letters: B rows of a block, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError, DataError
from trademl.etl._frame import dense_layout
from trademl.etl._protobuf import Record
from trademl.etl._row import first_row, parse_row
from trademl.etl._stream import FrameStream
from trademl.etl.csv_table import field_blocks
from trademl.etl.parquet_table import LABEL, ParquetRows
from trademl.etl.recordio import opened_records
from trademl.etl.tables import format_of

Floats = NDArray[np.float32]
BLOCK_BYTES = 2 * 1024 * 1024  # of float32


def feature_blocks(path: Path, columns: Sequence[str]) -> Iterator[Floats]:
    """Yield the features of consecutive rows, float32 of shape (B, D); labels are left out.

    Parameters
    ----------
    path : Path
        Ends in ``.recordio``, ``.csv`` or ``.parquet``; the first two may be followed by ``.gz``.
        A file of Parquet is held a row group at a time.
    columns : sequence of str
        Names of the D features. A line of CSV has D numbers, or a label before them; Parquet
        names its columns, which must be these in this order.

    Raises
    ------
    CodecError
        If the file is empty, cut or damaged; the message names the row. What was yielded before
        is sound.
    DataError
        If the file cannot be opened, or has other columns.
    """
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    kind = format_of(plain)
    if kind == "parquet" and plain is not path:
        raise DataError(f"{path}: Parquet compresses its own pages: give it without .gz")
    read = {"recordio": _record_blocks, "csv": _csv_blocks, "parquet": _parquet_blocks}[kind]
    try:
        yield from read(path, columns)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _record_blocks(path: Path, columns: Sequence[str]) -> Iterator[Floats]:
    with opened_records(path) as file:
        stream = FrameStream(file, str(path))
        first = first_row(stream)
        _check_width(path, len(first["features"]), columns)
        layout = dense_layout(len(columns), "label" in first)
        n_block = max(1, BLOCK_BYTES // layout.frame_bytes)
        offset = number = 0
        while n_left := (stream.n_bytes - offset) // layout.frame_bytes:
            found = layout.allocate(min(n_left, n_block))
            stream.fill(found, offset)
            n_fitting = layout.count_matching(found)
            if n_fitting:
                yield found["features"][:n_fitting]
            offset += n_fitting * layout.frame_bytes
            number += n_fitting
            if n_fitting < len(found):
                break
            del found  # the next block may take its place in memory, and so in the cache
        yield from _parsed_blocks(stream, len(columns), offset, number)


def _parsed_blocks(
    stream: FrameStream, feature_dim: int, offset: int, number: int
) -> Iterator[Floats]:
    """Yield the rows of records that are not dense float32, parsed one by one."""
    rows: list[Floats] = []
    while offset < stream.n_bytes:
        record: Record
        with stream.faults_of(number, offset):
            record, offset = stream.record_at(offset)
            rows.append(parse_row(record, feature_dim)["features"])
        number += 1
        if len(rows) * feature_dim * 4 >= BLOCK_BYTES:
            yield np.stack(rows)
            rows = []
    if rows:
        yield np.stack(rows)


def _csv_blocks(path: Path, columns: Sequence[str]) -> Iterator[Floats]:
    n_fields, is_ended = _first_line(path)
    with_label = n_fields == len(columns) + 1
    if not with_label:
        _check_width(path, n_fields, columns)
    for block_FB in field_blocks(path, n_fields):
        yield np.ascontiguousarray(block_FB[int(with_label) :].T)
    if not is_ended:
        raise CodecError(f"{path}: its last line has no end, the file was cut short")


def _first_line(path: Path) -> tuple[int, bool]:
    """Return how many fields the first line has, and whether the last one has an end.

    A file of gzip that was cut says so by itself, and is not looked at from its end.
    """
    with opened_records(path) as file:
        line = b""
        while b"\n" not in line and (chunk := file.read(64 * 1024)):
            line += chunk
        if not line:
            raise CodecError(f"{path} holds no rows")
        is_ended = True
        if path.suffix != ".gz":
            file.seek(-1, 2)
            is_ended = file.read(1) == b"\n"
    return line.partition(b"\n")[0].count(b",") + 1, is_ended


def _parquet_blocks(path: Path, columns: Sequence[str]) -> Iterator[Floats]:
    rows = ParquetRows(path)
    names = [name for name in rows.columns if name != LABEL]
    _check_width(path, len(names), columns)
    for place, (found, expected) in enumerate(zip(names, columns, strict=True), 1):
        if found != expected:
            raise DataError(
                f"{path}: column {place} is {found}, the model expects {expected}: give the "
                "features that it was trained on, in their order"
            )
    for _, features_BD, _ in rows.groups():
        yield features_BD


def _check_width(path: Path, found: int, columns: Sequence[str]) -> None:
    if found != len(columns):
        raise DataError(f"{path} has {found} features, the model expects {len(columns)}")
