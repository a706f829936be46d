"""A RecordIO file mapped into memory: rows are read when they are asked for.

Shape letters: N records of the file, M records asked for, D features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import CodecError, DataError
from trademl.etl._frame import FrameLayout, Frames, dense_layout
from trademl.etl._row import first_row, parse_row
from trademl.etl._stream import FrameStream

Floats = NDArray[np.float32]


class RecordFile:
    """Rows of a file of dense float32 records, by slice or by number; made by `open_recordio`.

    ``len(file)`` is N; ``file[rows]`` returns the features, shape (M, D), and labels, shape (M,) or
    None, of a slice or an array of record numbers. What it returns is a copy; every byte of the
    touched records that is not a float is compared first. A file must not shrink while it is open.
    """

    def __init__(self, path: Path, layout: FrameLayout, frames: Frames) -> None:
        self._path = path
        self._layout = layout
        self._frames = frames
        self._byte_NB = frames.view(np.uint8).reshape(len(frames), -1)
        self._template_B = layout.template.view(np.uint8)
        self._mask_B = layout.constant_mask
        self._first = layout.offset("features")

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def feature_dim(self) -> int:
        """Features of a record, D."""
        return int(self._layout.template["features"].shape[1])

    @property
    def has_label(self) -> bool:
        """Whether every record carries a label; otherwise none does."""
        return "label" in self._layout.columns

    @property
    def mapped(self) -> tuple[Floats, Floats | None]:
        """All features and labels as views of the file, read where touched; nothing is checked."""
        return self._frames["features"], self._frames["label"] if self.has_label else None

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> tuple[Floats, Floats | None]:
        """Return the features and labels of records.

        Raises
        ------
        CodecError
            If a touched record is damaged or of another shape than record 0; it is named.
        IndexError
            If there is no record of a number.
        """
        if not isinstance(rows, slice):
            return self._gathered(self._checked(rows))
        numbers = range(len(self))[rows]
        columns = self._layout.empty_columns(len(numbers))
        for start in range(0, len(numbers), self._layout.frames_per_block):
            chosen = numbers[start : start + self._layout.frames_per_block]
            found = self._frames[_slice(chosen)]
            if (n_fitting := self._layout.count_matching(found)) < len(found):
                raise self._fault_of(int(chosen[n_fitting]))
            for name, column in columns.items():
                column[start : start + len(found)] = found[name]
        return columns["features"], columns.get("label")

    def _gathered(self, number_M: NDArray[np.integer]) -> tuple[Floats, Floats | None]:
        """Return records by number: each is compared and copied once, while it is in the cache."""
        features_MD = np.empty((len(number_M), self.feature_dim), np.float32)
        n_fitting = copy_features(
            self._byte_NB, number_M.astype(np.int64, copy=False), self._template_B,
            self._mask_B, self._first, features_MD.view(np.uint8),
        )  # fmt: skip
        if n_fitting < len(number_M):
            raise self._fault_of(int(number_M[n_fitting]))
        return features_MD, self._frames["label"][number_M] if self.has_label else None

    def _checked(self, rows: NDArray[np.integer]) -> NDArray[np.integer]:
        if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise TypeError(f"records are chosen by {rows!r}, expected a slice or a vector of int")
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(
                f"{self._path}: records {rows.min()} to {rows.max()}, expected 0 to {len(self) - 1}"
            )
        return rows

    def _fault_of(self, number: int) -> CodecError:
        """Return what is wrong with a record that does not fit."""
        offset = number * self._layout.frame_bytes
        with self._path.open("rb", buffering=0) as file:
            stream = FrameStream(file, str(self._path))
            try:
                with stream.faults_of(number, offset):
                    parse_row(stream.record_at(offset)[0], self.feature_dim)
                    raise CodecError(_not_dense(self.feature_dim, self.has_label))
            except CodecError as error:
                return error


@njit(cache=True, nogil=True)
def copy_features(  # type: ignore[no-untyped-def]
    byte_NB, number_M, template_B, mask_B, first, out_MB
):
    """Copy the features of records, and return how many fit before the first that does not.

    Bytes before ``first`` and after the features must be those of ``template_B`` where ``mask_B``
    has all bits set. Loops without an exit and over slices are what the compiler makes wide.
    """
    n_bytes = out_MB.shape[1]
    for m in range(len(number_M)):
        record_B = byte_NB[number_M[m]]
        differs = np.uint8(0)
        for b in range(first):
            differs |= (record_B[b] ^ template_B[b]) & mask_B[b]
        for b in range(first + n_bytes, len(record_B)):
            differs |= (record_B[b] ^ template_B[b]) & mask_B[b]
        if differs:
            return m
        source, target = record_B[first : first + n_bytes], out_MB[m]
        for b in range(n_bytes):
            target[b] = source[b]
    return len(number_M)


def open_recordio(path: Path | str) -> RecordFile:
    """Open a file for reading rows here and there, without loading it.

    Parameters
    ----------
    path : Path or str
        Dense float32 records of one dimension, all with a label or none, as `write_recordio`
        writes them. `read_recordio` reads the others.

    Raises
    ------
    CodecError
        If the file is empty or cut, or record 0 is damaged or not dense float32.
    DataError
        If the file cannot be opened, or is compressed.
    """
    path = Path(path)
    if path.suffix == ".gz":
        raise DataError(
            f"{path}: a gzip file has no rows to point at: decompress it, or use read_recordio"
        )
    try:
        with path.open("rb", buffering=0) as file:
            stream = FrameStream(file, str(path))
            first, n_bytes = first_row(stream), stream.n_bytes
        feature_dim, with_label = len(first["features"]), "label" in first
        layout = dense_layout(feature_dim, with_label)
        n_records, n_left = divmod(n_bytes, layout.frame_bytes)
        mapped = np.memmap(path, layout.template.dtype, "r", shape=(max(n_records, 1),))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not layout.count_matching(mapped[:1]):
        fault = _not_dense(feature_dim, with_label)
        raise CodecError(f"{path}: record 0 at byte 0: {fault}")
    if n_left:
        raise CodecError(
            f"{path}: record {n_records} at byte {n_bytes - n_left}: cut short: {n_left} of "
            f"{layout.frame_bytes} bytes, or the records are not of one size"
        )
    return RecordFile(path, layout, mapped.view(np.ndarray))


def _slice(numbers: range) -> slice | NDArray[np.integer]:
    """Return what numpy takes for record numbers: a slice, which copies nothing, where it can."""
    if numbers.step == 1:
        return slice(numbers.start, numbers.stop)
    return np.arange(numbers.start, numbers.stop, numbers.step)


def _not_dense(feature_dim: int, with_label: bool) -> str:
    label = "a label" if with_label else "no label"
    return (
        f"not dense float32 of {feature_dim} features and {label}: read_recordio reads records of "
        "other kinds"
    )
