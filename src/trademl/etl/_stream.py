"""Frames behind a file, read into columns of floats.

Frames that fit a layout are read in blocks, every constant byte compared; from the first frame on
that does not, records are parsed one by one. Records count from 0, as array rows do.
"""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError
from trademl.etl._frame import FRAME_HEAD, MAGIC, MAX_PAYLOAD_BYTES, FrameLayout
from trademl.etl._protobuf import Record, parse_record

Row = dict[str, NDArray[np.float32]]
Columns = dict[str, NDArray[np.float32]]


class FrameStream:
    """Frames behind a seekable file; a fault names the file, the record and its first byte.

    Parameters
    ----------
    file : raw file, BytesIO or GzipFile
        Open for reading; the stream does not close it.
    name : str
        What messages call it.

    Raises
    ------
    CodecError
        If the file is empty.
    """

    def __init__(self, file: io.FileIO | io.BytesIO | gzip.GzipFile, name: str) -> None:
        self._file = file
        self._name = name
        self.n_bytes = file.seek(0, os.SEEK_END)
        if not self.n_bytes:
            raise CodecError(f"{name} holds no records")

    @contextmanager
    def faults_of(self, record: int, offset: int) -> Iterator[None]:
        """Put the place before the message of a CodecError that the block raises."""
        try:
            yield
        except CodecError as error:
            raise CodecError(f"{self._name}: record {record} at byte {offset}: {error}") from error

    def record_at(self, offset: int) -> tuple[Record, int]:
        """Return the record whose frame begins at ``offset``, and where the next frame begins."""
        left = self.n_bytes - offset
        if left < FRAME_HEAD.size:
            raise CodecError(f"cut short: {left} of the {FRAME_HEAD.size} bytes of a frame's head")
        magic, length = FRAME_HEAD.unpack(self._bytes(offset, FRAME_HEAD.size))
        if magic != MAGIC:
            raise CodecError(f"begins with 0x{magic:08X}, expected the magic 0x{MAGIC:08X}")
        if length > MAX_PAYLOAD_BYTES:
            raise CodecError(f"length {length}, expected at most {MAX_PAYLOAD_BYTES}")
        n_padded = length + -length % 4
        if FRAME_HEAD.size + n_padded > left:
            raise CodecError(f"cut short: {left} of {FRAME_HEAD.size + n_padded} bytes")
        padded = self._bytes(offset + FRAME_HEAD.size, n_padded)
        if any(padded[length:]):
            raise CodecError("padding is not zero")
        return parse_record(padded[:length]), offset + FRAME_HEAD.size + n_padded

    def fill(self, block: NDArray[Any], offset: int) -> None:
        """Read the bytes from ``offset`` on into ``block``."""
        self._file.seek(offset)
        unread = block.view(np.uint8).data
        while unread:
            if not (n_read := self._file.readinto(unread)):
                raise CodecError(f"{self._name} became shorter while it was read")
            unread = unread[n_read:]

    def _bytes(self, offset: int, n: int) -> bytes:
        chunk = np.empty(n, np.uint8)
        self.fill(chunk, offset)
        return chunk.tobytes()


def read_columns(
    stream: FrameStream, layout: FrameLayout, parse_row: Callable[[Record], Row]
) -> Columns:
    """Return the layout's columns, one row for each record of the stream.

    Parameters
    ----------
    parse_row : callable
        Gives the columns of a record that does not fit the layout.
    """
    columns, n_fitting = _read_fitting(stream, layout)
    offset = n_fitting * layout.frame_bytes
    rows: list[Row] = []
    while offset < stream.n_bytes:
        with stream.faults_of(n_fitting + len(rows), offset):
            record, offset = stream.record_at(offset)
            rows.append(parse_row(record))
    if not rows:
        return columns
    return {
        name: np.concatenate([column[:n_fitting], np.stack([row[name] for row in rows])])
        for name, column in columns.items()
    }


def _read_fitting(stream: FrameStream, layout: FrameLayout) -> tuple[Columns, int]:
    """Return columns, and how many of their leading rows are read: the others are undefined."""
    n = stream.n_bytes // layout.frame_bytes
    columns = layout.empty_columns(n)
    block = layout.allocate(min(n, layout.frames_per_block))
    for start in range(0, n, layout.frames_per_block):
        found = block[: n - start]
        stream.fill(found, start * layout.frame_bytes)
        fitting = found[: layout.count_matching(found)]
        for name, column in columns.items():
            column[start : start + len(fitting)] = fitting[name]
        if len(fitting) < len(found):
            return columns, start + len(fitting)
    return columns, n
