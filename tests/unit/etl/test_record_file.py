"""Rows read out of a mapped file: equal to the whole file's, and checked where they are touched."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import CodecError, DataError
from trademl.etl.record_file import open_recordio
from trademl.etl.recordio import encode_records, read_recordio, write_recordio

GOLDEN = Path(__file__).parents[2] / "golden" / "recordio"
N = 1500  # of 605 features: two blocks


@pytest.fixture(scope="module")
def feature_rows():
    return np.random.default_rng(3).standard_normal((N, 605), np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory, feature_rows):
    path = tmp_path_factory.mktemp("mapped") / "train.recordio"
    write_recordio(path, feature_rows, feature_rows[:, 1].copy())
    return path


ENDS = st.none() | st.integers(-N - 5, N + 5)


@settings(max_examples=60, deadline=None)
@given(ENDS, ENDS, st.sampled_from([None, 1, 2, 7, 800, -1, -3]))
def test_a_slice_holds_the_rows_that_numpy_would_take(path, feature_rows, start, stop, step):
    rows = slice(start, stop, step)
    read_ND, label_N = open_recordio(path)[rows]
    np.testing.assert_array_equal(read_ND, feature_rows[rows])
    np.testing.assert_array_equal(label_N, feature_rows[rows, 1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, N - 1), max_size=50))
def test_rows_by_number_come_in_the_order_asked_for(path, feature_rows, rows):
    rows = np.array(rows, np.int64)
    read_ND, label_N = open_recordio(path)[rows]
    np.testing.assert_array_equal(read_ND, feature_rows[rows])
    np.testing.assert_array_equal(label_N, feature_rows[rows, 1])


def test_many_rows_by_number_span_blocks(path, feature_rows):
    rows = np.random.default_rng(0).permutation(N)
    np.testing.assert_array_equal(open_recordio(path)[rows][0], feature_rows[rows])


def test_a_file_says_what_it_holds(path):
    file = open_recordio(path)
    assert (len(file), file.feature_dim, file.has_label) == (N, 605, True)


@pytest.mark.parametrize("n_features", [1, 29, 31, 605])
def test_files_of_the_sdk_without_labels_are_mapped(n_features):
    path = GOLDEN / f"dense_{n_features}_unlabelled.recordio"
    file = open_recordio(path)
    read_ND, label_N = file[:]
    assert not file.has_label
    assert label_N is None
    np.testing.assert_array_equal(read_ND, read_recordio(path)[0])


def test_what_is_read_may_be_changed_and_the_file_stays(path, feature_rows):
    file = open_recordio(path)
    file[:5][0][:] = 0
    np.testing.assert_array_equal(file[:5][0], feature_rows[:5])


def test_a_few_rows_cost_the_memory_of_a_few_rows(tmp_path):
    write_recordio(tmp_path / "file", np.zeros((20_000, 605), np.float32))
    tracemalloc.start()
    file = open_recordio(tmp_path / "file")
    file[10_000:10_100]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


# Damage


def damaged(tmp_path, data):
    path = tmp_path / "damaged.recordio"
    path.write_bytes(data)
    return path


def three_records():
    """Return the bytes of three records of 164 bytes."""
    of_three_ND = np.arange(87, dtype=np.float32).reshape(3, 29)
    return bytearray(encode_records(of_three_ND, np.ones(3, np.float32)))


def test_damage_is_found_where_a_row_is_touched_and_only_there(tmp_path):
    data = three_records()
    data[2 * 164] ^= 1
    file = open_recordio(damaged(tmp_path, data))
    assert len(file[:2][0]) == 2
    for rows in (slice(None), slice(2, 3), slice(None, None, -1), np.array([0, 2])):
        with pytest.raises(CodecError, match="record 2 at byte 328: begins with 0xCED7230B"):
            file[rows]


def test_no_changed_byte_of_an_envelope_goes_unnoticed(tmp_path):
    data = three_records()
    one_float, other_float = (
        encode_records(np.full((3, 29), x, np.float32), np.full(3, x, np.float32))
        for x in np.array([0x00000000, 0x01010101], np.uint32).view(np.float32)
    )
    envelope = [i for i in range(164, 328) if one_float[i] == other_float[i]]
    assert len(envelope) == 164 - 30 * 4
    for at in envelope:
        changed = data.copy()
        changed[at] ^= 0xFF
        file = open_recordio(damaged(tmp_path, changed))
        with pytest.raises(CodecError, match="record 1 at byte 164: "):
            file[:]


def test_a_cut_file_is_refused_when_it_is_opened(tmp_path):
    for cut in range(1, 163):
        with pytest.raises(CodecError, match=f"record 2 at byte 328: cut short: {164 - cut} of"):
            open_recordio(damaged(tmp_path, three_records()[:-cut]))


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(CodecError, match="holds no records"):
        open_recordio(damaged(tmp_path, b""))


@pytest.mark.parametrize("name", ["sparse", "float64", "int64", "float64_label"])
def test_records_of_other_kinds_are_refused_when_they_come_first(name):
    with pytest.raises(CodecError, match="record 0 at byte 0: not dense float32 of . features and"):
        open_recordio(GOLDEN / f"{name}.recordio")


def test_a_record_of_another_kind_is_refused_when_it_is_touched(tmp_path):
    dense = encode_records(np.ones((2, 4), np.float32))  # 40 bytes each
    other = encode_records(np.ones((1, 2), np.float32), np.ones(1, np.float32))
    unlike = dense + other + bytes(-len(other) % len(dense[:40]))
    file = open_recordio(damaged(tmp_path, unlike))
    with pytest.raises(CodecError, match="record 2 at byte .*dimension 2, expected 4"):
        file[:]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent cannot be read: No such file"):
        open_recordio(tmp_path / "absent")


def test_a_gzip_file_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match="decompress it, or use read_recordio"):
        open_recordio(tmp_path / "file.gz")


@pytest.mark.parametrize("rows", [3, np.array([0.5]), np.array([True]), np.zeros((1, 1), int), [0]])
def test_rows_are_a_slice_or_numbers(path, rows):
    with pytest.raises(TypeError, match="expected a slice or a vector of int"):
        open_recordio(path)[rows]


@pytest.mark.parametrize("rows", [[N], [-1], [0, N, 3]])
def test_a_number_without_a_record_is_refused(path, rows):
    with pytest.raises(IndexError, match=f"expected 0 to {N - 1}"):
        open_recordio(path)[np.array(rows)]
