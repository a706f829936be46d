"""A labelled dataset on disk, read back split by split.

Shape letters: N rows, D feature columns.

A dataset artifact holds ``train.recordio``, ``validation.recordio``, ``test.recordio``
(RecordIO-protobuf, float32; ``.csv`` or ``.parquet`` where asked for), ``rows.parquet`` (one line
per row: which order it is, what span of time it stands for, what it earned) and ``schema.json``
(what each column is, in what unit, and the latest time that it reads). A dataset made on Spark
holds ``train/part-00000.recordio`` and so on instead, and ``train.manifest``, which lists them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl.record_file import open_recordio
from trademl.etl.tables import TableFormat, format_of, read_table
from trademl.store.artifacts import Artifact

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One split of a dataset: features, labels, and what each row stands for.

    Parameters
    ----------
    features_ND : ndarray of float32, shape (N, D)
        Prices relative to the mid at the row's as-of time, in quote currency.
    label_N : ndarray of float32, shape (N,)
        1 where the order earned money after costs, else 0.
    order_id_N : ndarray of int64, shape (N,)
        Row of the batch's transactions, in order of time.
    as_of_N, exit_N : ndarray of int64, shape (N,)
        When the row was decided, and when its label was known; UTC nanoseconds.
    pnl_N : ndarray of float64, shape (N,)
        Realised profit after costs per unit, in quote currency.
    """

    features_ND: NDArray[np.float32]
    label_N: NDArray[np.float32]
    order_id_N: NDArray[np.int64]
    as_of_N: NDArray[np.int64]
    exit_N: NDArray[np.int64]
    pnl_N: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label_N)

    def take(self, rows_N: NDArray[np.bool_]) -> Split:
        """Return some of the rows."""
        return Split(*(getattr(self, field.name)[rows_N] for field in fields(self)))


def load_split(dataset: Artifact, name: str) -> Split:
    """Return one split of a dataset.

    Raises
    ------
    DataError
        If the split's records and its row keys do not match.
    CodecError
        If the file of records is damaged.
    """
    return _split(dataset, name, *_read_records(record_files(dataset, name)))


def map_split(dataset: Artifact, name: str) -> Split:
    """Return one split of a dataset, whose features are read from the file where they are touched.

    Only one file of RecordIO can be mapped; others are read as `load_split` does. Bytes around the
    floats are compared in the first record only.

    Raises
    ------
    DataError, CodecError
        As `load_split`.
    """
    paths = record_files(dataset, name)
    if len(paths) > 1 or format_of(paths[0]) != "recordio":
        return load_split(dataset, name)
    return _split(dataset, name, *open_recordio(paths[0]).mapped)


def _split(
    dataset: Artifact,
    name: str,
    features_ND: NDArray[np.float32],
    label_N: NDArray[np.float32] | None,
) -> Split:
    import pyarrow.parquet as pq

    names = ["order_id", "as_of_ns", "exit_ns", "pnl"]
    of_split = [("split", "=", name)]
    rows = pq.read_table(dataset.file("rows.parquet"), columns=names, filters=of_split)
    if label_N is None or rows.num_rows != len(label_N):
        raise DataError(
            f"{name} of {dataset.id} has {len(features_ND)} records, rows.parquet has "
            f"{rows.num_rows}: build the dataset again"
        )
    return Split(features_ND, label_N, *(rows[column].to_numpy() for column in names))


def record_files(dataset: Artifact, name: str) -> list[Path]:
    """Return the files of a split's records, in order of time: one, or one per part."""
    files = dataset.manifest["files"]
    if f"{name}.manifest" not in files:
        found = [f"{name}.{kind}" for kind in get_args(TableFormat) if f"{name}.{kind}" in files]
        return [dataset.file(found[0] if found else f"{name}.recordio")]
    path = dataset.file(f"{name}.manifest")
    try:
        head, *parts = json.loads(path.read_bytes())
        return [dataset.file(head["prefix"] + part) for part in parts]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): delete its folder and run again") from error


def _read_records(paths: list[Path]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    parts = [read_table(path) for path in paths]
    if len(parts) == 1:
        return parts[0]
    labels = [label_N for _, label_N in parts if label_N is not None]
    features_ND = np.concatenate([features_ND for features_ND, _ in parts])
    return features_ND, np.concatenate(labels) if len(labels) == len(parts) else None
