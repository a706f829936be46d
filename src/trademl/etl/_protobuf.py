"""One record's protobuf message, read field by field: slow, and sparse or odd records need it.

The schema is ``aialgs.data.Record`` of Amazon SageMaker (proto2): two maps from a string to a
``Value``, ``features`` and ``label``; a ``Value`` is one of three kinds of tensor, or bytes.

Two rules of the wire format keep this short. Fields that occur twice merge, and the bytes of two
messages laid end to end are the message of both merged. A packed list is its items laid end to
end, so an item that was written on its own is a packed list of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.errors import CodecError
from trademl.etl._frame import MAX_FEATURES

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
FLOAT32_TENSOR, FLOAT64_TENSOR, INT32_TENSOR, BYTES = 2, 3, 7, 9
_MAX_VARINT_BYTES = 10
_MAX_FIELD_NUMBER = 2**29 - 1

Numbers = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int32]


@dataclass(frozen=True)
class Tensor:
    """Numbers of one map entry: dense, or sparse where ``keys`` says each number's place."""

    values: Numbers
    keys: list[int]
    shape: list[int]

    @property
    def is_sparse(self) -> bool:
        """Whether the zeros are left out; a row of zeros alone has a shape and nothing else."""
        return bool(self.keys) or (bool(self.shape) and not len(self.values))

    @property
    def dimension(self) -> int:
        """How many numbers it stands for, zeros included.

        Raises
        ------
        CodecError
            If it is a matrix, or sparse without a shape, or its shape does not fit its values.
        """
        n_values = len(self.values)
        if len(self.shape) > 1 or (self.is_sparse and not self.shape):
            raise CodecError(f"values of shape {self.shape}, expected one dimension")
        if self.is_sparse:
            return self.shape[0]
        if self.shape not in ([], [n_values]):
            raise CodecError(f"{n_values} values of shape {self.shape}, expected [{n_values}]")
        return n_values


@dataclass(frozen=True)
class Record:
    """The two maps of a record, by key."""

    features: dict[bytes, Tensor]
    label: dict[bytes, Tensor]


def parse_record(payload: bytes) -> Record:
    """Return the record that a frame's payload holds; fields of other names are passed over.

    Raises
    ------
    CodecError
        If the payload is not a message of the schema, or a value is bytes and not numbers.
    """
    maps: dict[int, dict[bytes, Tensor]] = {1: {}, 2: {}}
    for number, wire_type, body in _fields(memoryview(payload)):
        if number in maps:
            _expect(wire_type, DELIMITED, "Record")
            key, tensor = _map_entry(body)
            maps[number][key] = tensor
    return Record(features=maps[1], label=maps[2])


def dense_float32(tensor: Tensor) -> NDArray[np.float32]:
    """Return a tensor's numbers, zeros included, as one float32 vector.

    Raises
    ------
    CodecError
        If keys, shape and values contradict each other, or a number is too large for float32.
    """
    with np.errstate(over="ignore"):
        values = tensor.values.astype(np.float32)
    if np.isinf(values).sum() != np.isinf(tensor.values).sum():
        raise CodecError("a value is too large for float32")
    if not tensor.is_sparse:
        return values
    n_values, keys = len(values), tensor.keys
    if tensor.dimension > MAX_FEATURES:
        raise CodecError(f"shape {tensor.shape}, expected at most [{MAX_FEATURES}]")
    if not len(keys) == len(set(keys)) == n_values:
        raise CodecError(f"{n_values} sparse values need as many different keys")
    if keys and max(keys) >= tensor.dimension:
        raise CodecError(f"key {max(keys)} lies outside shape {tensor.shape}")
    dense = np.zeros(tensor.dimension, np.float32)
    dense[keys] = values
    return dense


def _map_entry(entry: memoryview) -> tuple[bytes, Tensor]:
    key, value = b"", b""
    for number, wire_type, body in _fields(entry):
        if number in (1, 2):
            _expect(wire_type, DELIMITED, "map entry")
        if number == 1:
            key = bytes(body)
        elif number == 2:
            value += body
    return key, _value(memoryview(value))


def _value(message: memoryview) -> Tensor:
    """Return the tensor of a ``Value``: of several kinds the last one counts."""
    kind, merged = FLOAT32_TENSOR, b""
    for number, wire_type, body in _fields(message):
        if number in (FLOAT32_TENSOR, FLOAT64_TENSOR, INT32_TENSOR, BYTES):
            _expect(wire_type, DELIMITED, "Value")
            merged = merged + body if number == kind else bytes(body)
            kind = number
    if kind == BYTES:
        raise CodecError("a value is bytes, expected numbers")
    return _tensor(kind, memoryview(merged))


def _tensor(kind: int, message: memoryview) -> Tensor:
    item = {FLOAT32_TENSOR: FIXED32, FLOAT64_TENSOR: FIXED64, INT32_TENSOR: VARINT}[kind]
    packed = {1: b"", 2: b"", 3: b""}
    for number, wire_type, body in _fields(message):
        if number in packed:
            if wire_type != DELIMITED:
                _expect(wire_type, item if number == 1 else VARINT, "tensor")
            packed[number] += body
    return Tensor(_numbers(kind, packed[1]), _varints(packed[2]), _varints(packed[3]))


def _numbers(kind: int, packed: bytes) -> Numbers:
    if kind == INT32_TENSOR:
        # A negative int32 is written as 64 bits; its low 32 are the number.
        low_bits = [n & 0xFFFFFFFF for n in _varints(packed)]
        return np.array(low_bits, np.uint32).view(np.int32)
    dtype = np.dtype("<f4" if kind == FLOAT32_TENSOR else "<f8")
    if len(packed) % dtype.itemsize:
        raise CodecError(f"{len(packed)} bytes of values are not a whole number of {dtype.name}")
    return np.frombuffer(packed, dtype)


def _fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield number, wire type and bytes of each field; a varint's bytes are still encoded."""
    at = 0
    while at < len(message):
        tag, start = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD_NUMBER:
            raise CodecError(f"field number {number}, expected 1 to {_MAX_FIELD_NUMBER}")
        if wire_type == DELIMITED:
            length, start = _varint(message, start)
            at = start + length
        elif wire_type == VARINT:
            at = _varint(message, start)[1]
        elif wire_type in (FIXED32, FIXED64):
            at = start + (4 if wire_type == FIXED32 else 8)
        else:
            raise CodecError(f"field {number} has wire type {wire_type}, expected 0, 1, 2 or 5")
        if at > len(message):
            raise CodecError(f"field {number} ends {at - len(message)} bytes after its message")
        yield number, wire_type, message[start:at]


def _varints(packed: bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(packed):
        number, at = _varint(packed, at)
        numbers.append(number)
    return numbers


def _varint(message: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at byte ``at``, and where the next byte is."""
    number = 0
    for i, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at + i + 1
    raise CodecError("a varint has no end")


def _expect(found: int, expected: int, message: str) -> None:
    if found != expected:
        raise CodecError(f"a field of {message} has wire type {found}, expected {expected}")
