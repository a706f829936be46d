"""Rows read here and there, from RecordIO, Parquet and windows of snapshots."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.errors import CodecError, DataError
from trademl.etl.parquet_spool import fill_spool, make_spool, needs_spool
from trademl.etl.row_source import SnapshotRows, open_rows, write_snapshots
from trademl.etl.tables import table_writer

D = 5
COLUMNS = tuple(f"c{i}" for i in range(D))
WANTED = np.array([7, 0, 63, 64, 99, 64])


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(100, D)).astype(np.float32), rng.integers(0, 2, 100).astype(np.float32)


def write(path, features_ND, label_N, **more):
    with table_writer(path, COLUMNS, **more) as writer:
        writer.write(features_ND, label_N)
    return path


@pytest.mark.parametrize("kind", ["recordio", "parquet"])
def test_rows_of_files_laid_end_to_end(table, tmp_path, kind):
    features_ND, label_N = table
    paths = [
        write(tmp_path / f"{i}.{kind}", features_ND[rows], label_N[rows])
        for i, rows in enumerate((slice(0, 64), slice(64, 100)))
    ]
    if needs_spool(paths):
        make_spool(paths, tmp_path / "spool")
        for part in (1, 0):
            fill_spool(paths, tmp_path / "spool", part=part, n_parts=2)

    source = open_rows(paths, spool=tmp_path / "spool")

    found_MD, target_M1 = source.read(WANTED)
    assert (len(source), source.feature_dim) == (100, D)
    np.testing.assert_array_equal(found_MD, features_ND[WANTED])
    np.testing.assert_array_equal(target_M1[:, 0], label_N[WANTED])


def test_a_process_decodes_its_row_groups_and_no_other(table, tmp_path, monkeypatch):
    monkeypatch.setattr("trademl.etl.parquet_table.BLOCK_BYTES", 4 * D * 10)
    features_ND, label_N = table
    path = write(tmp_path / "rows.parquet", features_ND, label_N)
    make_spool([path], tmp_path)
    fill_spool([path], tmp_path, part=1, n_parts=2)

    found_ND = np.load(tmp_path / "rows.npy")[:, 1:]
    is_filled = (found_ND == features_ND).all(axis=1)
    np.testing.assert_array_equal(is_filled, np.arange(100) // 10 % 2 == 1)


def test_csv_cannot_be_read_here_and_there(table, tmp_path):
    path = write(tmp_path / "rows.csv", *table)

    with pytest.raises(DataError, match="--format recordio or parquet"):
        open_rows([path], spool=tmp_path)


def test_records_without_labels_are_refused(table, tmp_path):
    path = tmp_path / "rows.recordio"
    with table_writer(path, COLUMNS, with_label=False) as writer:
        writer.write(table[0])

    with pytest.raises(DataError, match="has no labels"):
        open_rows([path], spool=tmp_path)


def test_a_cut_parquet_file_is_refused_before_the_spool_is_made(table, tmp_path):
    path = write(tmp_path / "rows.parquet", *table)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(CodecError):
        make_spool([path], tmp_path / "spool")
    assert not (tmp_path / "spool").exists()


def test_a_window_reads_snapshots_up_to_its_end_and_none_after(tmp_path):
    snapshot_HC = np.arange(60, dtype=np.float32).reshape(20, 3)
    end_N, target_NK = np.array([3, 19, 8]), np.ones((3, 2), np.float32)
    write_snapshots(tmp_path / "hourly", snapshot_HC, end_N, target_NK)

    source = open_rows([tmp_path / "hourly"], spool=tmp_path, n_steps=4)

    found_MD, target_MK = source.read(np.array([0, 2]))
    assert source.feature_dim == 12
    np.testing.assert_array_equal(found_MD[0].reshape(4, 3), snapshot_HC[:4])
    np.testing.assert_array_equal(found_MD[1].reshape(4, 3), snapshot_HC[5:9])
    assert target_MK.shape == (2, 2)


def test_a_window_before_the_first_snapshot_is_refused():
    snapshot_HC = np.zeros((20, 3), np.float32)

    with pytest.raises(DataError, match="row 1 ends at snapshot 2, expected from 3 to 19"):
        SnapshotRows(snapshot_HC, np.array([3, 2]), np.zeros((2, 1), np.float32), n_steps=4)
