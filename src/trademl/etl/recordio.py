"""RecordIO-protobuf, the binary format that SageMaker's Linear Learner trains on.

Shape letters: N records, B records of a block, D features.

A file is frames laid end to end: magic, payload length, a protobuf ``Record``, zero padding to a
multiple of four bytes. There is no header and no index, so a file cut between two frames is a
shorter file, and a file cut anywhere else is damaged.

What is written equals, byte for byte, what ``write_numpy_to_dense_tensor`` of the SageMaker Python
SDK 2.257.7 writes; its successor, version 3, has no writer.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError, DataError
from trademl.etl._frame import Frames, answer_layout, dense_layout
from trademl.etl._protobuf import Record
from trademl.etl._row import first_row, parse_row, scalar, vector
from trademl.etl._stream import FrameStream, Row, read_columns
from trademl.etl._writer import BlockWriter, Fill, check_feature_dim, check_rows

Floats = NDArray[np.float32]
Buffer = bytes | bytearray | memoryview

_IN_MEMORY = "RecordIO bytes"
GZIP_LEVEL = 1  # level 6 halves a file of lagged prices and takes more than four times as long


def write_recordio(path: Path | str, features_ND: Floats, label_N: Floats | None = None) -> None:
    """Write one record per row.

    Parameters
    ----------
    path : Path or str
        The file appears when it is complete; an older one of that name stays until then. It is
        compressed where its name ends in ``.gz``.
    features_ND : ndarray of float32, shape (N, D)
        N and D at least 1. NaN and infinities are written as they are.
    label_N : ndarray of float32, shape (N,), optional
        Left out, the records carry no label.

    Raises
    ------
    DataError
        If an array has another dtype or shape, or has no rows.
    """
    check_rows(features_ND, label_N)
    with RecordWriter(Path(path), features_ND.shape[1], with_label=label_N is not None) as writer:
        writer.write(features_ND, label_N)


def encode_records(features_ND: Floats, label_N: Floats | None = None) -> bytes:
    """Return the bytes that `write_recordio` writes; no rows give no bytes.

    Raises
    ------
    DataError
        If an array has another dtype or shape.

    Examples
    --------
    >>> encode_records(np.array([[1.0, -2.5, 0.0]], np.float32)).hex(" ", 4)
    '0a23d7ce 1c000000 0a1a0a06 76616c75 65731210 120e0a0c 0000803f 000020c0 00000000'
    """
    check_rows(features_ND, label_N)
    layout = dense_layout(features_ND.shape[1], label_N is not None)
    block = layout.stamped(len(features_ND))
    block["features"] = features_ND
    if label_N is not None:
        block["label"] = label_N
    return block.tobytes()


class RecordWriter(BlockWriter):
    """Write records block by block, in memory that does not grow with their number.

    Use it as a context manager: the file appears under its name when the ``with`` block ends, and
    not at all where it raises.

    Parameters
    ----------
    path : Path
        File to write, compressed where it ends in ``.gz``; until it is complete it is called
        ``<path>.part``.
    feature_dim : int
        D, at least 1.
    with_label : bool
        Whether every record carries a label, or none does.
    n_workers : int
        Threads of `fill`, each of which fills and writes blocks of its own: faster where filling
        takes time and lets other threads run. A compressed file is always written by one.

    Raises
    ------
    DataError
        If ``feature_dim`` is out of range, or if the ``with`` block ends without a record.
    """

    def __init__(
        self, path: Path, feature_dim: int, *, with_label: bool, n_workers: int = 1
    ) -> None:
        check_feature_dim(feature_dim)
        layout = dense_layout(feature_dim, with_label)
        n = layout.frames_per_block
        super().__init__(path, feature_dim, with_label=with_label, rows_per_block=n)
        self._block = layout.stamped(n)
        self._n_workers = 1 if path.suffix == ".gz" else n_workers

    def _open(self, part: Path) -> None:
        self._files = ExitStack()
        self._file: io.FileIO | gzip.GzipFile
        if self._path.suffix == ".gz":
            # Without a name and a time in its head, equal rows make equal files.
            file = self._files.enter_context(part.open("wb"))
            zipped = gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0)
            self._file = self._files.enter_context(zipped)
        else:
            self._file = self._files.enter_context(part.open("wb", buffering=0))

    def _close(self) -> None:
        self._files.close()

    def _room(self, n: int) -> tuple[Floats, Floats | None]:
        return self._columns(self._block[:n])

    def _append(self, n: int) -> None:
        unwritten = self._block[:n].view(np.uint8).data
        while unwritten:
            unwritten = unwritten[self._file.write(unwritten) :]

    def _columns(self, frames: Frames) -> tuple[Floats, Floats | None]:
        return frames["features"], frames["label"] if self._with_label else None

    def fill(self, n_rows: int, put: Fill) -> None:
        """See `BlockWriter.fill`."""
        n_block, first = self._rows_per_block, self._file.tell()
        n_workers = min(self._n_workers, -(-n_rows // n_block))
        if n_workers <= 1:
            super().fill(n_rows, put)
            return
        # A worker writes what it filled, while that is in the cache of its core.
        spare: SimpleQueue[Frames] = SimpleQueue()
        for block in [self._block, *(self._block.copy() for _ in range(n_workers - 1))]:
            spare.put(block)

        def work(start: int) -> None:
            block = spare.get()
            try:
                frames = block[: n_rows - start]
                put(start, start + len(frames), *self._columns(frames))
                _write_at(self._file.fileno(), frames, first + start * frames.itemsize)
            finally:
                spare.put(block)

        with ThreadPoolExecutor(n_workers) as pool:
            list(pool.map(work, range(0, n_rows, n_block)))
        self._file.seek(0, os.SEEK_END)
        self._n_written += n_rows


def _write_at(descriptor: int, frames: Frames, offset: int) -> None:
    unwritten = frames.view(np.uint8).data
    while unwritten:
        n_written = os.pwrite(descriptor, unwritten, offset)
        unwritten, offset = unwritten[n_written:], offset + n_written


def read_recordio(path: Path | str) -> tuple[Floats, Floats | None]:
    """Return the features and labels of a file, after a check of every byte that is neither.

    Parameters
    ----------
    path : Path or str
        Records of one dimension, with labels or without. Dense float32 is read in blocks; sparse,
        float64 and int32 records are read one by one, and rounded to float32. A file whose name
        ends in ``.gz`` is decompressed twice, to learn its length first: it is never held whole.

    Returns
    -------
    features_ND : ndarray of float32, shape (N, D)
    label_N : ndarray of float32, shape (N,), or None

    Raises
    ------
    CodecError
        If the file is empty, cut or damaged, or if its records differ in dimension or in having a
        label; the message names the record and its first byte.
    DataError
        If the file cannot be opened.
    """
    path = Path(path)
    try:
        with opened_records(path) as file:
            return _read_rows(FrameStream(file, str(path)), None)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def decode_records(
    buffer: Buffer, *, feature_dim: int | None = None
) -> tuple[Floats, Floats | None]:
    """Return the features and labels of records in memory, such as a request's body.

    Parameters
    ----------
    feature_dim : int, optional
        Refuse records of any other dimension. A sparse record of few bytes can claim millions of
        features: give it wherever the bytes come from a stranger. It is also the faster way.

    Raises
    ------
    CodecError
        As `read_recordio`.

    Examples
    --------
    >>> features, label = decode_records(encode_records(np.ones((2, 3), np.float32)))
    >>> features.shape, label
    ((2, 3), None)
    """
    if feature_dim is not None and (rows := _fitting_rows(buffer, feature_dim)):
        return rows
    return _read_rows(FrameStream(io.BytesIO(buffer), _IN_MEMORY), feature_dim)


def encode_predictions(score_N: Floats, predicted_label_N: Floats | None = None) -> bytes:
    """Return Linear Learner's answer, one record per instance.

    Parameters
    ----------
    score_N : ndarray, shape (N,) or (N, K)
        Probability of label 1, a predicted quantity, or a share for each of K classes.
    predicted_label_N : ndarray of shape (N,), optional
        Left out for a predicted quantity.

    Returns
    -------
    bytes
        Records without features; their label map holds ``score`` and perhaps ``predicted_label``.

    Raises
    ------
    DataError
        If the arrays are not of one length.
    """
    label_shape = score_N.shape[:1] if predicted_label_N is None else predicted_label_N.shape
    if score_N.ndim not in (1, 2) or label_shape != score_N.shape[:1]:
        raise DataError(
            f"scores have shape {score_N.shape}, predicted labels {label_shape}: "
            "expected two vectors of one length"
        )
    layout = answer_layout(score_N.shape[1:], predicted_label_N is not None)
    block = layout.stamped(len(score_N))
    block["score"] = score_N
    if predicted_label_N is not None:
        block["predicted_label"] = predicted_label_N
    return block.tobytes()


def decode_predictions(buffer: Buffer) -> tuple[Floats, Floats]:
    """Return scores and predicted labels of shape (N,) from Linear Learner's answer.

    Scores of several classes have the shape (N, K).

    Raises
    ------
    CodecError
        If the answer is empty, cut or damaged, lacks one of the two, or its rows have unlike
        numbers of scores.
    """
    stream = FrameStream(io.BytesIO(buffer), _IN_MEMORY)
    with stream.faults_of(0, 0):
        n_scores = len(vector(stream.record_at(0)[0].label, "label", "score"))
    layout = answer_layout((n_scores,) if n_scores > 1 else (), with_label=True)

    def parse_row(record: Record) -> Row:
        score = vector(record.label, "label", "score", n_scores)
        return {
            "score": score if n_scores > 1 else score.reshape(()),
            "predicted_label": scalar(record.label, "label", "predicted_label"),
        }

    columns = read_columns(stream, layout, parse_row)
    return columns["score"], columns["predicted_label"]


@contextmanager
def opened_records(path: Path) -> Iterator[io.FileIO | gzip.GzipFile]:
    """Open a file for reading, decompressed where its name ends in ``.gz``."""
    with path.open("rb", buffering=0) as file:
        if path.suffix != ".gz":
            yield file
            return
        try:
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield unzipped
        except EOFError as error:
            n_bytes = path.stat().st_size
            raise CodecError(f"{path}: cut short: {n_bytes} bytes hold no end of gzip") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise CodecError(f"{path}: is damaged, or is not gzip: {error}") from error


def _fitting_rows(buffer: Buffer, feature_dim: int) -> tuple[Floats, Floats | None] | None:
    """Return the rows of a body that is frames of dense float32 and nothing else, or None."""
    body = np.frombuffer(buffer, np.uint8)
    for with_label in (False, True):
        layout = dense_layout(feature_dim, with_label)
        if len(body) and len(body) % layout.frame_bytes == 0:
            frames = body.view(layout.template.dtype)
            if layout.count_matching(frames) == len(frames):
                return frames["features"].copy(), frames["label"].copy() if with_label else None
    return None


def _read_rows(stream: FrameStream, feature_dim: int | None) -> tuple[Floats, Floats | None]:
    """Return all rows, which have the shape of the first."""
    first = first_row(stream, feature_dim)

    def parse_like_first(record: Record) -> Row:
        row = parse_row(record, len(first["features"]))
        if row.keys() != first.keys():
            raise CodecError(f"{'a' if 'label' in row else 'no'} label, unlike record 0")
        return row

    layout = dense_layout(len(first["features"]), "label" in first)
    columns = read_columns(stream, layout, parse_like_first)
    return columns["features"], columns.get("label")
