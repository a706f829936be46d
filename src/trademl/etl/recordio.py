"""RecordIO-protobuf, the binary format that SageMaker's Linear Learner trains on.

Shape letters: N records, B records of a block, D features.

A file is frames laid end to end: magic, payload length, a protobuf ``Record``, zero padding to a
multiple of four bytes. There is no header and no index, so a file cut between two frames is a
shorter file, and a file cut anywhere else is damaged.

What is written equals, byte for byte, what ``write_numpy_to_dense_tensor`` of the SageMaker Python
SDK 2.257.7 writes; its successor, version 3, has no writer.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError, DataError
from trademl.etl._frame import MAX_FEATURES, Frames, dense_layout, prediction_layout
from trademl.etl._protobuf import Record, Tensor, dense_float32
from trademl.etl._stream import FrameStream, Row, read_columns

Floats = NDArray[np.float32]
Buffer = bytes | bytearray | memoryview

_IN_MEMORY = "RecordIO bytes"


def write_recordio(path: Path, features_ND: Floats, label_N: Floats | None = None) -> None:
    """Write one record per row.

    Parameters
    ----------
    path : Path
        The file appears when it is complete; an older one of that name stays until then.
    features_ND : ndarray of float32, shape (N, D)
        N and D at least 1. NaN and infinities are written as they are.
    label_N : ndarray of float32, shape (N,), optional
        Left out, the records carry no label.

    Raises
    ------
    DataError
        If an array has another dtype or shape, or has no rows.
    """
    _check_rows(features_ND, label_N)
    with RecordWriter(path, features_ND.shape[1], with_label=label_N is not None) as writer:
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
    _check_rows(features_ND, label_N)
    layout = dense_layout(features_ND.shape[1], label_N is not None)
    block = layout.stamped(len(features_ND))
    block["features"] = features_ND
    if label_N is not None:
        block["label"] = label_N
    return block.tobytes()


class RecordWriter:
    """Write records block by block, in memory that does not grow with their number.

    Use it as a context manager: the file appears under its name when the ``with`` block ends, and
    not at all where it raises.

    Parameters
    ----------
    path : Path
        File to write; until it is complete it is called ``<path>.part``.
    feature_dim : int
        D, at least 1.
    with_label : bool
        Whether every record carries a label, or none does.

    Raises
    ------
    DataError
        If ``feature_dim`` is out of range, or if the ``with`` block ends without a record.
    """

    def __init__(self, path: Path, feature_dim: int, *, with_label: bool) -> None:
        _check_feature_dim(feature_dim)
        layout = dense_layout(feature_dim, with_label)
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._feature_dim = feature_dim
        self._with_label = with_label
        self._block = layout.stamped(layout.frames_per_block)
        self._n_written = 0

    def __enter__(self) -> Self:
        self._file = self._part.open("wb", buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is None and self._n_written:
            self._part.replace(self._path)
            return
        self._part.unlink()
        if kind is None:
            raise DataError(f"{self._path}: no rows to write, expected at least one")

    def write(self, features_ND: Floats, label_N: Floats | None = None) -> None:
        """Append one record per row.

        Raises
        ------
        DataError
            If an array has another dtype or shape than the file's, or a label is missing or extra.
        """
        _check_rows(features_ND, label_N)
        self._check_like_file(features_ND, label_N)
        for start, stop, features_BD, label_B in self.blocks(len(features_ND)):
            features_BD[:] = features_ND[start:stop]
            if label_B is not None and label_N is not None:
                label_B[:] = label_N[start:stop]

    def blocks(self, n_rows: int) -> Iterator[tuple[int, int, Floats, Floats | None]]:
        """Yield room for the next ``n_rows`` records, block by block, and write what is put there.

        Yields
        ------
        start, stop : int
            Which of the ``n_rows`` the room is for.
        features_BD : ndarray of float32, shape (stop - start, D)
            To be filled: it holds the numbers of an earlier block. Rows are not contiguous.
        label_B : ndarray of float32, shape (stop - start,), or None
            To be filled likewise; None where the file has no labels.

        Notes
        -----
        A block is written when the next is asked for, so a loop that is left early drops its last.
        """
        for start in range(0, n_rows, len(self._block)):
            block = self._block[: n_rows - start]
            label_B = block["label"] if self._with_label else None
            yield start, start + len(block), block["features"], label_B
            self._append(block)

    def _append(self, block: Frames) -> None:
        unwritten = block.view(np.uint8).data
        while unwritten:
            unwritten = unwritten[self._file.write(unwritten) :]
        self._n_written += len(block)

    def _check_like_file(self, features_ND: Floats, label_N: Floats | None) -> None:
        if features_ND.shape[1] != self._feature_dim:
            raise DataError(
                f"{self._path}: rows of {features_ND.shape[1]} features, "
                f"expected {self._feature_dim}"
            )
        if (label_N is not None) != self._with_label:
            rule = "need a label" if self._with_label else "carry no label"
            raise DataError(f"{self._path}: its records {rule}, as said when it was opened")


def read_recordio(path: Path) -> tuple[Floats, Floats | None]:
    """Return the features and labels of a file, after a check of every byte that is neither.

    Parameters
    ----------
    path : Path
        Records of one dimension, with labels or without. Dense float32 is read in blocks; sparse,
        float64 and int32 records are read one by one, and rounded to float32.

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
    try:
        with path.open("rb", buffering=0) as file:
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


def encode_predictions(score_N: Floats, predicted_label_N: Floats) -> bytes:
    """Return Linear Learner's answer for a binary classifier, one record per instance.

    Parameters
    ----------
    score_N : ndarray, shape (N,)
        Probability of label 1.
    predicted_label_N : ndarray, shape (N,)
        0 or 1.

    Returns
    -------
    bytes
        Records without features; their label map holds ``score`` and ``predicted_label``.

    Raises
    ------
    DataError
        If the arrays are not two vectors of one length.
    """
    if score_N.ndim != 1 or score_N.shape != predicted_label_N.shape:
        raise DataError(
            f"scores have shape {score_N.shape}, predicted labels {predicted_label_N.shape}: "
            "expected two vectors of one length"
        )
    block = prediction_layout().stamped(len(score_N))
    block["score"] = score_N
    block["predicted_label"] = predicted_label_N
    return block.tobytes()


def decode_predictions(buffer: Buffer) -> tuple[Floats, Floats]:
    """Return scores and predicted labels, each of shape (N,), from Linear Learner's answer.

    Raises
    ------
    CodecError
        If the answer is empty, cut or damaged, or lacks one of the two.
    """
    layout = prediction_layout()

    def parse_row(record: Record) -> Row:
        return {name: _scalar(record.label, "label", name) for name in layout.columns}

    columns = read_columns(FrameStream(io.BytesIO(buffer), _IN_MEMORY), layout, parse_row)
    return columns["score"], columns["predicted_label"]


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
    with stream.faults_of(0, 0):
        first = _parse_row(stream.record_at(0)[0], feature_dim)

    def parse_row(record: Record) -> Row:
        row = _parse_row(record, len(first["features"]))
        if row.keys() != first.keys():
            raise CodecError(f"{'a' if 'label' in row else 'no'} label, unlike record 0")
        return row

    layout = dense_layout(len(first["features"]), "label" in first)
    columns = read_columns(stream, layout, parse_row)
    return columns["features"], columns.get("label")


def _parse_row(record: Record, feature_dim: int | None) -> Row:
    row = {"features": _vector(record.features, "features", "values", feature_dim)}
    if record.label:
        row["label"] = _scalar(record.label, "label", "values")
    return row


def _scalar(entries: dict[bytes, Tensor], name: str, key: str) -> Floats:
    return _vector(entries, name, key, 1).reshape(())


def _vector(entries: dict[bytes, Tensor], name: str, key: str, dimension: int | None) -> Floats:
    if (tensor := entries.get(key.encode())) is None:
        held = ", ".join(k.decode(errors="replace") for k in entries) or "nothing"
        raise CodecError(f"{name} hold {held}, expected {key}")
    if tensor.dimension != (dimension or tensor.dimension) or not tensor.dimension:
        raise CodecError(
            f"{name} {key} have dimension {tensor.dimension}, expected {dimension or 'at least 1'}"
        )
    return dense_float32(tensor)


def _check_rows(features_ND: Floats, label_N: Floats | None) -> None:
    if features_ND.ndim != 2:
        raise DataError(f"features have shape {features_ND.shape}, expected rows and columns")
    _check_feature_dim(features_ND.shape[1])
    _check_float32("features", features_ND)
    if label_N is None:
        return
    if label_N.shape != (len(features_ND),):
        raise DataError(f"labels have shape {label_N.shape}, expected ({len(features_ND)},)")
    _check_float32("labels", label_N)


def _check_feature_dim(feature_dim: int) -> None:
    if not 1 <= feature_dim <= MAX_FEATURES:
        raise DataError(f"records of {feature_dim} features, expected 1 to {MAX_FEATURES}")


def _check_float32(name: str, values: Floats) -> None:
    if values.dtype != np.float32:
        raise DataError(
            f"{name} are {values.dtype}: cast them to float32, Linear Learner reads only Float32 "
            "tensors"
        )
