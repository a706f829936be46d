"""The one frame that all records of equal shape share, as a numpy dtype.

Shape letters: N records.

A record of float32 values is a few floats inside a constant envelope: magic, length, map keys and
the lengths of five nested messages depend on how many floats there are, never on their values. So
N records are one structured array: its envelopes are stamped from a template, and its floats are
ordinary numpy columns.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = 0xCED7230A
FRAME_HEAD = struct.Struct("<II")  # magic, bytes of payload without padding
# MXNet keeps the upper three bits of the length word for records in several parts.
MAX_PAYLOAD_BYTES = 2**29 - 1
# Heads of the nested messages, the label and its heads: what a payload holds beside its features.
MAX_FEATURES = (MAX_PAYLOAD_BYTES - 64) // 4

# 849 frames of 605 features: smaller blocks pay more for each call, larger ones leave the cache.
BLOCK_BYTES = 2 * 1024 * 1024

FEATURES_MAP, LABEL_MAP = b"\x0a", b"\x12"  # fields 1 and 2 of a Record, both length-delimited

Frames = NDArray[np.void]


@dataclass(frozen=True)
class MapEntry:
    """One key of a record's map and the shape of its Float32Tensor: a column of the frames."""

    column: str
    map_tag: bytes
    key: bytes
    shape: tuple[int, ...] = ()

    @property
    def n_bytes(self) -> int:
        """How many bytes its floats take."""
        return 4 * math.prod(self.shape)

    def envelope(self) -> bytes:
        """Return the entry's bytes before its floats, which are its last bytes."""
        envelope = b""
        # From the inside out: Float32Tensor.values, Value.float32_tensor, entry.value.
        for tag in (b"\x0a", b"\x12", b"\x12"):
            envelope = tag + varint(len(envelope) + self.n_bytes) + envelope
        envelope = b"\x0a" + varint(len(self.key)) + self.key + envelope
        return self.map_tag + varint(len(envelope) + self.n_bytes) + envelope


@dataclass(frozen=True)
class FrameLayout:
    """Where the floats of a frame lie, and every byte of it that is not a float.

    Parameters
    ----------
    template : structured ndarray, shape (1,)
        A frame whose floats are zero.
    columns : tuple of str
        The fields that hold floats.
    constants : tuple of str
        The fields that hold the envelope.
    """

    template: Frames
    columns: tuple[str, ...]
    constants: tuple[str, ...]

    @property
    def frame_bytes(self) -> int:
        """Size of a frame, padding included."""
        return self.template.itemsize

    @property
    def frames_per_block(self) -> int:
        """How many frames to read or write in one call."""
        return max(1, BLOCK_BYTES // self.frame_bytes)

    def allocate(self, n: int) -> Frames:
        """Return ``n`` frames of undefined content, their floats at addresses divisible by 4."""
        n_bytes = n * self.frame_bytes
        memory = np.empty(n_bytes + 3, np.uint8)
        # Frames are multiples of four bytes, envelopes are not.
        shift = -(memory.ctypes.data + self._first_float) % 4
        return memory[shift : shift + n_bytes].view(self.template.dtype)

    def stamped(self, n: int) -> Frames:
        """Return ``n`` frames that lack only their floats."""
        block = self.allocate(n)
        block[:] = self.template
        return block

    def empty_columns(self, n: int) -> dict[str, NDArray[np.float32]]:
        """Return an array of undefined content for each column of ``n`` records."""
        return {
            name: np.empty((n, *self.template[name].shape[1:]), np.float32) for name in self.columns
        }

    def count_matching(self, block: Frames) -> int:
        """Return how many frames come before the first that differs in a constant byte."""
        match_N = np.ones(len(block), np.bool_)
        for name in self.constants:
            match_N &= block[name] == self.template[name]
        return len(block) if match_N.all() else int(match_N.argmin())

    @property
    def constant_mask(self) -> NDArray[np.uint8]:
        """All bits of each byte of a frame that is no part of a float, shape (bytes,)."""
        mask_B = np.full(self.frame_bytes, 255, np.uint8)
        for name in self.columns:
            first = self.offset(name)
            mask_B[first : first + self.template.dtype[name].itemsize] = 0
        return mask_B

    def offset(self, name: str) -> int:
        """Return the place in a frame of a field's first byte."""
        fields: Mapping[str, Any] = self.template.dtype.fields or {}
        return int(fields[name][1])

    @property
    def _first_float(self) -> int:
        return min(self.offset(name) for name in self.columns)


@lru_cache(maxsize=16)
def dense_layout(feature_dim: int, with_label: bool) -> FrameLayout:
    """Return the frame of ``feature_dim`` features: columns ``features``, perhaps ``label``."""
    features = MapEntry("features", FEATURES_MAP, b"values", (feature_dim,))
    label = MapEntry("label", LABEL_MAP, b"values")
    return frame_layout((features, label) if with_label else (features,))


@lru_cache(maxsize=16)
def answer_layout(score_shape: tuple[int, ...], with_label: bool) -> FrameLayout:
    """Return the frame of an answer: columns ``score``, and perhaps ``predicted_label``."""
    score = MapEntry("score", LABEL_MAP, b"score", score_shape)
    label = MapEntry("predicted_label", LABEL_MAP, b"predicted_label")
    return frame_layout((score, label) if with_label else (score,))


def frame_layout(entries: tuple[MapEntry, ...]) -> FrameLayout:
    """Return the frame of a record that holds these map entries, in this order."""
    length = sum(len(entry.envelope()) + entry.n_bytes for entry in entries)
    constants = {"frame_head": FRAME_HEAD.pack(MAGIC, length)}
    fields: list[tuple[Any, ...]] = [("frame_head", f"V{FRAME_HEAD.size}")]
    for entry in entries:
        name, envelope = f"{entry.column}_envelope", entry.envelope()
        constants[name] = envelope
        fields += [(name, f"V{len(envelope)}"), (entry.column, "<f4", entry.shape)]
    if n_padding := -length % 4:
        constants["padding"] = bytes(n_padding)
        fields.append(("padding", f"V{n_padding}"))
    template = np.zeros(1, np.dtype(fields))
    for name, value in constants.items():
        template[name] = np.void(value)
    return FrameLayout(template, tuple(entry.column for entry in entries), tuple(constants))


def varint(n: int) -> bytes:
    """Return ``n`` in protobuf's base-128 form, least significant group first."""
    groups = bytearray()
    while n > 0x7F:
        groups.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*groups, n])
