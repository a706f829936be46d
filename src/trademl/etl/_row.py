"""The features and the label that one record holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError
from trademl.etl._protobuf import Record, Tensor, dense_float32
from trademl.etl._stream import FrameStream, Row

Floats = NDArray[np.float32]


def first_row(stream: FrameStream, feature_dim: int | None = None) -> Row:
    """Return ``features`` and perhaps ``label`` of a stream's first record; see `parse_row`."""
    with stream.faults_of(0, 0):
        return parse_row(stream.record_at(0)[0], feature_dim)


def parse_row(record: Record, feature_dim: int | None) -> Row:
    """Return ``features`` and, where the record has one, ``label``.

    Raises
    ------
    CodecError
        If the record lacks features, or they have another dimension than ``feature_dim``.
    """
    row = {"features": vector(record.features, "features", "values", feature_dim)}
    if record.label:
        row["label"] = scalar(record.label, "label", "values")
    return row


def scalar(entries: dict[bytes, Tensor], name: str, key: str) -> Floats:
    """Return the one number under a key, shape ().

    Raises
    ------
    CodecError
        If the key is missing, or holds more than one number.
    """
    return vector(entries, name, key, 1).reshape(())


def vector(
    entries: dict[bytes, Tensor], name: str, key: str, dimension: int | None = None
) -> Floats:
    """Return the numbers under a key.

    Raises
    ------
    CodecError
        If the key is missing, holds none, or another number of them than ``dimension``.
    """
    if (tensor := entries.get(key.encode())) is None:
        held = ", ".join(k.decode(errors="replace") for k in entries) or "nothing"
        raise CodecError(f"{name} hold {held}, expected {key}")
    if tensor.dimension != (dimension or tensor.dimension) or not tensor.dimension:
        raise CodecError(
            f"{name} {key} have dimension {tensor.dimension}, expected {dimension or 'at least 1'}"
        )
    return dense_float32(tensor)
