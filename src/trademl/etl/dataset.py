"""A labelled dataset on disk, read back split by split.

Shape letters: N rows, D feature columns.

A dataset artifact holds ``train.recordio``, ``validation.recordio``, ``test.recordio``
(RecordIO-protobuf, float32), ``rows.parquet`` (one line per row: which order it is, what span of
time it stands for, what it earned) and ``schema.json`` (what each column is, in what unit, and
the latest time that it reads).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl.recordio import read_recordio
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


def load_split(dataset: Artifact, name: str) -> Split:
    """Return one split of a dataset.

    Raises
    ------
    DataError
        If the split's records and its row keys do not match.
    CodecError
        If the file of records is damaged.
    """
    import pyarrow.parquet as pq

    features_ND, label_N = read_recordio(dataset.file(f"{name}.recordio"))
    rows = pq.read_table(dataset.file("rows.parquet"), filters=[("split", "=", name)])
    if label_N is None or rows.num_rows != len(label_N):
        raise DataError(
            f"{name}.recordio of {dataset.id} has {len(features_ND)} records, rows.parquet has "
            f"{rows.num_rows}: build the dataset again"
        )
    column = {n: rows[n].to_numpy() for n in ("order_id", "as_of_ns", "exit_ns", "pnl")}
    return Split(
        features_ND,
        label_N,
        column["order_id"],
        column["as_of_ns"],
        column["exit_ns"],
        column["pnl"],
    )
