"""Read the arrays of an MXNet ``.params`` file, without MXNet.

The format is that of ``NDArray::Save`` in Apache MXNet's ``src/ndarray/ndarray.cc`` (versions 1.0
to 1.9; the project is retired), little-endian throughout:

======================== =========================================================================
uint64, uint64           magic 0x112 of a list, and 0
uint64                   number of arrays; then for each of them
uint32                   magic 0xF993FAC9 (0xF993FAC8 before 1.0, without the next field)
int32                    storage type, 0 = dense
uint32, int64 ...        number of dimensions, and each of them; of 0 dimensions nothing follows
int32, int32             device type and number
int32                    element type: 0 float32, 1 float64, 2 float16, 3 uint8, 4 int32, 5 int8,
                         6 int64
bytes                    the elements, row by row
uint64                   number of names; then for each a uint64 length and its bytes
======================== =========================================================================
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError

_LIST_MAGIC = 0x112
_V1_MAGIC, _V2_MAGIC, _V3_MAGIC = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DENSE = 0
_DTYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
_MAX_ARRAYS, _MAX_DIMENSIONS = 1_000, 8


def read_params(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a ``.params`` file by name, such as ``arg:fc0_weight``.

    Raises
    ------
    CodecError
        If it is no such file, cut short, or holds arrays that are sparse or of an unknown type.
    """
    reader = _Reader(content)
    magic, _ = reader.take("<QQ")
    if magic != _LIST_MAGIC:
        raise CodecError(f"no list of MXNet arrays: it begins with {magic:#x}, expected 0x112")
    arrays = [_array(reader) for _ in range(reader.count("arrays"))]
    names = [reader.text() for _ in range(reader.count("names"))]
    if len(names) != len(arrays):
        raise CodecError(f"{len(arrays)} MXNet arrays have {len(names)} names")
    return dict(zip(names, arrays, strict=True))


def _array(reader: _Reader) -> NDArray[Any]:
    (magic,) = reader.take("<I")
    if magic not in (_V1_MAGIC, _V2_MAGIC, _V3_MAGIC):
        raise CodecError(f"byte {reader.at - 4}: {magic:#x} is no MXNet array of version 1 to 3")
    if magic != _V1_MAGIC and (storage := reader.take("<i")[0]) != _DENSE:
        raise CodecError(f"byte {reader.at - 4}: storage type {storage}, expected 0 (dense)")
    (n_dimensions,) = reader.take("<I")
    if n_dimensions > _MAX_DIMENSIONS:
        raise CodecError(f"byte {reader.at - 4}: an array of {n_dimensions} dimensions")
    shape = reader.take(f"<{n_dimensions}q")
    if not shape:
        return np.zeros(0, np.float32)
    _, _, kind = reader.take("<iii")
    if not 0 <= kind < len(_DTYPES) or min(shape) < 0:
        raise CodecError(f"byte {reader.at - 4}: element type {kind} of shape {shape}")
    dtype = np.dtype(_DTYPES[kind])
    return np.frombuffer(reader.bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


class _Reader:
    """Bytes read from front to back; what is not there raises CodecError."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def bytes(self, n: int) -> bytes:
        if n > len(self._content) - self.at:
            raise CodecError(f"byte {self.at}: cut short: {n} bytes expected")
        self.at += n
        return self._content[self.at - n : self.at]

    def take(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def count(self, what: str) -> int:
        (n,) = self.take("<Q")
        if n > _MAX_ARRAYS:
            raise CodecError(f"byte {self.at - 8}: {n} {what}, expected at most {_MAX_ARRAYS}")
        return n

    def text(self) -> str:
        return self.bytes(self.take("<Q")[0]).decode(errors="replace")
