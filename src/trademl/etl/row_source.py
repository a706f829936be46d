"""Labelled rows read here and there from files too large to load, whatever their format.

Shape letters: N rows, M rows asked for, D features, K targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl.parquet_spool import spooled
from trademl.etl.record_file import open_recordio
from trademl.etl.tables import format_of
from trademl.store.artifacts import storage_errors

Floats = NDArray[np.float32]


class RowSource(Protocol):
    """N labelled rows, any of which can be asked for in any order, from several threads."""

    def __len__(self) -> int:
        """Rows, N."""

    @property
    def feature_dim(self) -> int:
        """Features of a row, D."""

    def read(self, number_M: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return features, shape (M, D), and targets, shape (M, K), of rows by number."""


class RecordRows:
    """The rows of RecordIO files laid end to end, each mapped into memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [open_recordio(path) for path in paths]
        for path, file in zip(paths, self._files, strict=True):
            if not file.has_label:
                raise DataError(f"{path} has no labels: a network is trained on labelled rows")
            if file.feature_dim != self.feature_dim:
                raise DataError(
                    f"{path} has {file.feature_dim} features, {paths[0]} has {self.feature_dim}"
                )
        self._first = np.cumsum([0, *(len(file) for file in self._files)])

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def feature_dim(self) -> int:
        """Features of a row, D."""
        return self._files[0].feature_dim

    def read(self, number_M: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return features, shape (M, D), and targets, shape (M, 1), of rows by number."""
        if len(self._files) == 1:
            return _with_label(self._files[0][number_M])
        features_MD = np.empty((len(number_M), self.feature_dim), np.float32)
        target_M1 = np.empty((len(number_M), 1), np.float32)
        of_file_M = np.searchsorted(self._first, number_M, side="right") - 1
        for file in np.unique(of_file_M):
            chosen_M = of_file_M == file
            found = self._files[file][number_M[chosen_M] - self._first[file]]
            features_MD[chosen_M], target_M1[chosen_M] = _with_label(found)
        return features_MD, target_M1


class MappedRows:
    """Rows of two arrays, in memory or mapped: features, shape (N, D), targets, shape (N, K)."""

    def __init__(self, features_ND: Floats, target_NK: Floats) -> None:
        if len(features_ND) != len(target_NK):
            raise DataError(f"{len(features_ND)} rows of features, {len(target_NK)} of targets")
        self._features_ND = features_ND
        self._target_NK = target_NK

    def __len__(self) -> int:
        return len(self._features_ND)

    @property
    def feature_dim(self) -> int:
        """Features of a row, D."""
        return int(self._features_ND.shape[1])

    def read(self, number_M: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return features, shape (M, D), and targets, shape (M, K), of rows by number."""
        return self._features_ND[number_M], self._target_NK[number_M]


class SnapshotRows:
    """Rows that are windows over snapshots: row n reads snapshots at or before ``end_N[n]`` only.

    A window of T hourly snapshots shares all but one of them with the next: they are kept once.

    Parameters
    ----------
    snapshot_HC : ndarray of float32, shape (H, C)
        C numbers at each of H times, oldest first; in memory or mapped.
    end_N : ndarray of int64, shape (N,)
        The last snapshot of each row.
    target_NK : ndarray of float32, shape (N, K)
        What each row is to predict.
    n_steps : int
        Snapshots of a row, T; its features are the T snapshots one after another, D = T C.

    Raises
    ------
    DataError
        If a row's window begins before the first snapshot or ends after the last.
    """

    def __init__(
        self, snapshot_HC: Floats, end_N: NDArray[np.int64], target_NK: Floats, *, n_steps: int
    ) -> None:
        if len(end_N) != len(target_NK):
            raise DataError(f"{len(end_N)} windows, {len(target_NK)} rows of targets")
        outside = (end_N < n_steps - 1) | (end_N >= len(snapshot_HC))
        if outside.any():
            row = int(outside.argmax())
            raise DataError(
                f"row {row} ends at snapshot {end_N[row]}, expected from {n_steps - 1} to "
                f"{len(snapshot_HC) - 1}: a window has {n_steps} snapshots"
            )
        self._snapshot_HC = snapshot_HC
        self._end_N = end_N
        self._target_NK = target_NK
        self._back_T = np.arange(1 - n_steps, 1)

    def __len__(self) -> int:
        return len(self._end_N)

    @property
    def feature_dim(self) -> int:
        """Features of a row, D."""
        return len(self._back_T) * int(self._snapshot_HC.shape[1])

    def read(self, number_M: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return features, shape (M, D), and targets, shape (M, K), of rows by number."""
        window_MT = self._end_N[number_M][:, None] + self._back_T
        return self._snapshot_HC[window_MT].reshape(len(number_M), -1), self._target_NK[number_M]


SNAPSHOTS, ENDS, TARGETS = "snapshots.npy", "ends.npy", "targets.npy"


def write_snapshots(
    folder: Path, snapshot_HC: Floats, end_N: NDArray[np.int64], target_NK: Floats
) -> None:
    """Write what `open_rows` opens as `SnapshotRows`: a folder of three ``.npy`` files."""
    with storage_errors(folder, "folder"):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / SNAPSHOTS, np.ascontiguousarray(snapshot_HC, np.float32))
        np.save(folder / ENDS, np.asarray(end_N, np.int64))
        np.save(folder / TARGETS, np.ascontiguousarray(target_NK, np.float32))


def open_rows(paths: Sequence[Path], *, spool: Path, n_steps: int = 1) -> RowSource:
    """Open the files of one split, in order of time, without loading them.

    Parameters
    ----------
    paths : sequence of Path
        RecordIO files; or Parquet files; or one folder of `write_snapshots`.
    spool : Path
        Folder of the decoded rows of Parquet, which cannot be pointed at as it is; filled before
        by `trademl.etl.parquet_spool`.
    n_steps : int
        Snapshots of a row.

    Raises
    ------
    CodecError
        If a file is damaged.
    DataError
        If it cannot be opened, has no labels, or is of a format that cannot be read in part.
    """
    if len(paths) == 1 and paths[0].is_dir():
        arrays = [_mapped(paths[0] / name) for name in (SNAPSHOTS, ENDS, TARGETS)]
        return SnapshotRows(arrays[0], np.array(arrays[1]), arrays[2], n_steps=n_steps)
    formats = {format_of(path) for path in paths}
    if formats == {"recordio"}:
        return RecordRows(paths)
    if formats == {"parquet"}:
        table_NC = _mapped(spooled(spool))
        return MappedRows(table_NC[:, 1:], table_NC[:, :1])
    raise DataError(
        f"{paths[0]}: rows of {', '.join(sorted(formats))} cannot be read here and there: build "
        "the dataset with --format recordio or parquet"
    )


def _mapped(path: Path) -> NDArray[np.float32]:
    try:
        found: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): write it again") from error
    return found


def _with_label(found: tuple[Floats, Floats | None]) -> tuple[Floats, Floats]:
    features_MD, label_M = found
    if label_M is None:
        raise DataError("the records have no labels: a network is trained on labelled rows")
    return features_MD, label_M[:, None]
