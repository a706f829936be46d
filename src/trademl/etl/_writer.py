"""What every writer of labelled rows does: blocks of room, checks, a file that is whole or absent.

Shape letters: N rows, B rows of a block, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl._frame import MAX_FEATURES

Floats = NDArray[np.float32]
Fill = Callable[[int, int, Floats, Floats | None], None]


class BlockWriter(ABC):
    """Write rows block by block, in memory that does not grow with their number.

    Use it as a context manager: the file appears under its name when the ``with`` block ends, and
    not at all where it raises.

    Parameters
    ----------
    path : Path
        File to write; until it is complete it is called ``<path>.part``.
    feature_dim : int
        D, at least 1.
    with_label : bool
        Whether every row carries a label, or none does.
    rows_per_block : int
        B, at least 1.

    Raises
    ------
    DataError
        If ``feature_dim`` is out of range, or if the ``with`` block ends without a row.
    """

    def __init__(
        self, path: Path, feature_dim: int, *, with_label: bool, rows_per_block: int
    ) -> None:
        check_feature_dim(feature_dim)
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._feature_dim = feature_dim
        self._with_label = with_label
        self._rows_per_block = rows_per_block
        self._n_written = 0

    @abstractmethod
    def _open(self, part: Path) -> None:
        """Begin the file."""

    @abstractmethod
    def _close(self) -> None:
        """End the file."""

    @abstractmethod
    def _room(self, n: int) -> tuple[Floats, Floats | None]:
        """Return where the next ``n`` rows and their labels go, ``n`` at most B."""

    @abstractmethod
    def _append(self, n: int) -> None:
        """Write the ``n`` rows that are in the room."""

    def __enter__(self) -> Self:
        self._open(self._part)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._close()
            if kind is None and self._n_written:
                self._part.replace(self._path)
        finally:
            self._part.unlink(missing_ok=True)
        if kind is None and not self._n_written:
            raise DataError(f"{self._path}: no rows to write, expected at least one")

    def write(self, features_ND: Floats, label_N: Floats | None = None) -> None:
        """Append rows.

        Raises
        ------
        DataError
            If an array has another dtype or shape than the file's, or a label is missing or extra.
        """
        check_rows(features_ND, label_N)
        self._check_like_file(features_ND, label_N)
        for start, stop, features_BD, label_B in self.blocks(len(features_ND)):
            features_BD[:] = features_ND[start:stop]
            if label_B is not None and label_N is not None:
                label_B[:] = label_N[start:stop]

    def blocks(self, n_rows: int) -> Iterator[tuple[int, int, Floats, Floats | None]]:
        """Yield room for the next ``n_rows`` rows, block by block, and write what is put there.

        Yields
        ------
        start, stop : int
            Which of the ``n_rows`` the room is for.
        features_BD : ndarray of float32, shape (stop - start, D)
            To be filled: it holds the numbers of an earlier block. Rows may not be contiguous.
        label_B : ndarray of float32, shape (stop - start,), or None
            To be filled likewise; None where the file has no labels.

        Notes
        -----
        A block is written when the next is asked for, so a loop that is left early drops its last.
        """
        for start in range(0, n_rows, self._rows_per_block):
            n = min(self._rows_per_block, n_rows - start)
            features_BD, label_B = self._room(n)
            yield start, start + n, features_BD, label_B
            self._append(n)
            self._n_written += n

    def fill(self, n_rows: int, put: Fill) -> None:
        """Append rows that ``put(start, stop, features_BD, label_B)`` fills in: see `blocks`.

        Where a writer has several workers, ``put`` runs in their threads, blocks in any order.
        """
        for room in self.blocks(n_rows):
            put(*room)

    def _check_like_file(self, features_ND: Floats, label_N: Floats | None) -> None:
        if features_ND.shape[1] != self._feature_dim:
            raise DataError(
                f"{self._path}: rows of {features_ND.shape[1]} features, "
                f"expected {self._feature_dim}"
            )
        if (label_N is not None) != self._with_label:
            rule = "need a label" if self._with_label else "carry no label"
            raise DataError(f"{self._path}: its records {rule}, as said when it was opened")


def check_rows(features_ND: Floats, label_N: Floats | None) -> None:
    """Refuse rows that are not float32, or labels that are not one for each row.

    Raises
    ------
    DataError
        It names what was found.
    """
    if features_ND.ndim != 2:
        raise DataError(f"features have shape {features_ND.shape}, expected rows and columns")
    check_feature_dim(features_ND.shape[1])
    _check_float32("features", features_ND)
    if label_N is None:
        return
    if label_N.shape != (len(features_ND),):
        raise DataError(f"labels have shape {label_N.shape}, expected ({len(features_ND)},)")
    _check_float32("labels", label_N)


def check_feature_dim(feature_dim: int) -> None:
    """Refuse rows of no features, or of more than a record can hold.

    Raises
    ------
    DataError
        It names both bounds.
    """
    if not 1 <= feature_dim <= MAX_FEATURES:
        raise DataError(f"records of {feature_dim} features, expected 1 to {MAX_FEATURES}")


def _check_float32(name: str, values: Floats) -> None:
    if values.dtype != np.float32:
        raise DataError(
            f"{name} are {values.dtype}: cast them to float32, Linear Learner reads only Float32 "
            "tensors"
        )
