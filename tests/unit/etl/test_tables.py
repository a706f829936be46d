"""One contract for every format of a split: the same rows back, bit by bit, or one line of error."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trademl.errors import CodecError, DataError
from trademl.etl.tables import format_of, read_table, table_writer

ENDINGS = ["recordio", "recordio.gz", "csv", "parquet"]
FINITE = st.floats(width=32, allow_nan=False)

every_format = pytest.mark.parametrize("ending", ENDINGS)
many = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def names(n):
    return [f"mid_lag_{lag}s" for lag in range(n, 0, -1)]


def write(path, features_ND, label_N=None):
    columns = names(features_ND.shape[1])
    with table_writer(path, columns, with_label=label_N is not None) as writer:
        writer.write(features_ND, label_N)
    return path


def bits(values):
    return None if values is None else np.ascontiguousarray(values).view(np.uint32).tolist()


@pytest.fixture
def rows():
    return np.arange(12, dtype=np.float32).reshape(4, 3) / 8, np.array([0, 1, 1, 0], np.float32)


# Rows read back


@every_format
@many
@given(data=st.data(), labelled=st.booleans())
def test_rows_read_back_bit_by_bit(tmp_path, ending, data, labelled):
    n, d = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    features_ND = data.draw(hnp.arrays(np.float32, (n, d), elements=FINITE))
    label_N = data.draw(hnp.arrays(np.float32, n, elements=FINITE)) if labelled else None
    path = write(tmp_path / f"split.{ending}", features_ND, label_N)

    read_ND, read_N = read_table(path, with_label=labelled)

    assert read_ND.dtype == np.float32
    assert (bits(read_ND), bits(read_N)) == (bits(features_ND), bits(label_N))


@every_format
def test_not_a_number_reads_back_as_such(tmp_path, ending):
    special = np.array([[np.nan, np.inf], [-np.inf, -0.0]], np.float32)
    path = write(tmp_path / f"split.{ending}", special, np.array([np.nan, 1], np.float32))
    read_ND, read_N = read_table(path)
    np.testing.assert_array_equal(read_ND, special)
    np.testing.assert_array_equal(read_N, [np.nan, 1])


@every_format
def test_rows_of_many_blocks_keep_their_order(tmp_path, ending):
    features_ND = np.repeat(np.arange(8000, dtype=np.float32)[:, None], 605, axis=1)
    path = write(tmp_path / f"split.{ending}", features_ND, features_ND[:, 0].copy())
    read_ND, read_N = read_table(path)
    np.testing.assert_array_equal(read_ND, features_ND)
    np.testing.assert_array_equal(read_N, features_ND[:, 0])


@every_format
def test_room_filled_in_place_makes_the_file_that_write_makes(tmp_path, ending, rows):
    features_ND, label_N = rows
    path = tmp_path / f"split.{ending}"
    with table_writer(path, names(3)) as writer:
        for start, stop, features_BD, label_B in writer.blocks(4):
            features_BD[:] = features_ND[start:stop]
            label_B[:] = label_N[start:stop]

    assert path.read_bytes() == write(tmp_path / f"other.{ending}", *rows).read_bytes()


@every_format
def test_room_is_aligned_for_compiled_loops(tmp_path, ending):
    with table_writer(tmp_path / f"split.{ending}", names(31)) as writer:
        for _, _, features_BD, label_B in writer.blocks(3):
            features_BD[:], label_B[:] = 0, 0
            assert features_BD.flags.aligned
            assert label_B.flags.aligned


GROW = """
import resource, sys
from pathlib import Path
from trademl.etl.tables import table_writer

def write(n):
    with table_writer(Path(sys.argv[1]), [str(d) for d in range(605)]) as writer:
        for _, _, features_BD, label_B in writer.blocks(n):
            features_BD[:], label_B[:] = 0.1, 1

write(14_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write(35_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@every_format
def test_memory_of_writing_does_not_grow_with_the_number_of_rows(tmp_path, ending):
    words = [sys.executable, "-c", GROW, str(tmp_path / f"split.{ending}")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 35_000, done.stdout  # KiB; the rows that were added have 50,000


# What other programs read


def test_csv_is_label_first_without_header_in_the_shortest_digits(tmp_path):
    features_ND = np.array([[0.1, -2.5, 0], [1 / 3, 1e-7, 16777216]], np.float32)
    path = write(tmp_path / "split.csv", features_ND, np.array([1, 0], np.float32))
    assert path.read_text() == "1,0.1,-2.5,0\n0,0.33333334,1e-7,16777216\n"


def test_csv_of_other_programs_is_read(tmp_path):
    path = tmp_path / "split.csv"
    path.write_bytes(b"1.0, 1.000000000000000000e+00,-0.25\r\n0,2,+3E2\r\n")
    read_ND, read_N = read_table(path)
    assert (read_N.tolist(), read_ND.tolist()) == ([1, 0], [[1, -0.25], [2, 300]])


def test_parquet_has_a_float32_column_for_each_name_of_the_schema(tmp_path, rows):
    import pyarrow.parquet as pq

    table = pq.read_table(write(tmp_path / "split.parquet", *rows))
    assert table.column_names == ["label", "mid_lag_3s", "mid_lag_2s", "mid_lag_1s"]
    assert {str(field.type) for field in table.schema} == {"float"}
    assert table["mid_lag_2s"].to_pylist() == rows[0][:, 1].tolist()


# Refused on writing


@every_format
def test_a_file_without_rows_is_refused_and_not_left_behind(tmp_path, ending):
    with pytest.raises(DataError, match="no rows to write"):
        write(tmp_path / f"split.{ending}", np.zeros((0, 3), np.float32))
    assert not list(tmp_path.iterdir())


@every_format
def test_an_interrupted_write_leaves_the_older_file_alone(tmp_path, ending, rows):
    path = write(tmp_path / f"split.{ending}", *rows)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), table_writer(path, names(3)) as writer:
        writer.write(*rows)
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@every_format
@pytest.mark.parametrize(
    ("features_ND", "label_N", "message"),
    [
        (np.zeros((1, 2), np.float32), np.zeros(1, np.float32), "rows of 2 features, expected 3"),
        (np.zeros((1, 3), np.float64), np.zeros(1, np.float32), "features are float64"),
        (np.zeros((1, 3), np.float32), None, "need a label"),
    ],
)
def test_rows_unlike_the_file_are_refused(tmp_path, ending, features_ND, label_N, message):
    with (
        pytest.raises(DataError, match=message),
        table_writer(tmp_path / f"split.{ending}", names(3)) as writer,
    ):
        writer.write(features_ND, label_N)


@every_format
def test_rows_without_features_are_refused(tmp_path, ending):
    with pytest.raises(DataError, match="records of 0 features, expected 1 to"):
        table_writer(tmp_path / f"split.{ending}", [])


@pytest.mark.parametrize("columns", [["a", "label"], ["label", "a", "label"]])
def test_a_feature_called_label_is_refused_by_parquet(tmp_path, columns):
    with pytest.raises(DataError, match="two columns are called label"):
        table_writer(tmp_path / "split.parquet", columns)


def test_two_features_of_one_name_are_refused_by_parquet(tmp_path):
    with pytest.raises(DataError, match="two columns are called b"):
        table_writer(tmp_path / "split.parquet", ["a", "b", "b"], with_label=False)


@pytest.mark.parametrize("name", ["split", "split.txt", "split.csv.gz", "split.gz"])
def test_another_ending_is_refused_with_those_known(tmp_path, name):
    for refuse in (
        lambda: table_writer(tmp_path / name, ["a"]),
        lambda: read_table(tmp_path / name),
    ):
        with pytest.raises(DataError, match=r"expected .recordio, .csv, .parquet or .recordio.gz"):
            refuse()


def test_formats_by_ending(tmp_path):
    found = [format_of(tmp_path / f"split.{ending}") for ending in ENDINGS]
    assert found == ["recordio", "recordio", "csv", "parquet"]


# Damage


@every_format
def test_a_missing_file_is_named(tmp_path, ending):
    with pytest.raises(DataError, match=rf"absent.{ending} cannot be read: No such file"):
        read_table(tmp_path / f"absent.{ending}")


@every_format
def test_an_empty_file_is_refused(tmp_path, ending):
    (tmp_path / f"split.{ending}").touch()
    with pytest.raises(CodecError, match=rf"^{tmp_path}/split.{ending}"):
        read_table(tmp_path / f"split.{ending}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n0,2\n", "line 2: 2 fields, expected 3 as on line 1"),
        ("1,2,3\n0,2,3,4\n", "line 2: 4 fields, expected 3 as on line 1"),
        ("1,2,3\n0,x,3\n", "line 2: field 2 is 'x', expected a number"),
        ("label,bid,ask\n0,2,3\n", "line 1: field 1 is 'label', expected a number"),
        ('1,2,3\n0,"2",3\n', "line 2: field 2 is '\"2\"', expected a number"),
        ("1,2,3\n0,,3\n", "line 2: field 2 is empty"),
        ("1,2,3\n\n0,2,3\n", "line 2: 1 fields, expected 3|line 2: field 1 is empty"),
        ("1,2,3\n0,2,3", "line 2: has no end, the file was cut short"),
        ("1\n", "line 1: 1 field, expected a label and features"),
        ("1,2\n1,2\r3,4\n", "more rows than lines: a carriage return"),
        ("1,2,3\n" * 40_000 + "0,2\n", "line 40001: 2 fields, expected 3"),
        ("1,2,3\n" * 900_000 + "0,,3\n", "line 900001: field 2 is empty"),
        ("1,2,3\n" * 900_000 + "0,2,x\n", "line 900001: field 3 is 'x'"),
    ],
)
def test_a_damaged_line_of_csv_is_named(tmp_path, text, message):
    (tmp_path / "split.csv").write_bytes(text.encode())
    with pytest.raises(CodecError, match=rf"^{tmp_path}/split.csv: ({message})") as caught:
        read_table(tmp_path / "split.csv")
    assert "\n" not in str(caught.value)


def test_every_cut_of_csv_inside_a_line_is_found(tmp_path, rows):
    path = write(tmp_path / "split.csv", *rows)
    data = path.read_bytes()
    for cut in range(1, len(data)):
        path.write_bytes(data[:cut])
        if data[cut - 1 : cut] == b"\n":
            assert len(read_table(path)[0]) == data[:cut].count(b"\n")
        else:
            with pytest.raises(CodecError, match=rf"line {data[:cut].count(10) + 1}: has no end"):
                read_table(path)


def test_every_cut_of_parquet_is_found(tmp_path, rows):
    path = write(tmp_path / "split.parquet", *rows)
    data = path.read_bytes()
    for cut in [*range(0, len(data), 11), *range(len(data) - 12, len(data))]:
        path.write_bytes(data[:cut])
        with pytest.raises(CodecError, match=rf"^{path}: its head or its footer is damaged"):
            read_table(path)


def test_a_flipped_bit_of_parquet_values_names_its_rows(tmp_path):
    features_ND = np.random.default_rng(0).standard_normal((16_000, 300), np.float32)
    path = write(tmp_path / "split.parquet", features_ND)
    data = bytearray(path.read_bytes())
    data[len(data) // 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(CodecError, match=r"split.parquet: rows 0 to 13980 are damaged: ") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0), byte=st.integers(1, 255))
def test_damaged_parquet_is_an_error_of_ours_or_has_every_row(tmp_path_factory, at, byte):
    features_ND = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = write(tmp_path_factory.mktemp("damage") / "split.parquet", features_ND)
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= byte
    path.write_bytes(data)
    try:
        read_ND, _ = read_table(path)
    except DataError:
        return
    assert len(read_ND) == 4


def parquet_of(path, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_of_another_type_is_refused_with_the_column(tmp_path):
    path = parquet_of(tmp_path / "split.parquet", bid=np.zeros(2), label=np.zeros(2, np.float32))
    with pytest.raises(DataError, match="column bid is double, expected float32"):
        read_table(path)


def test_an_empty_value_of_parquet_names_its_row(tmp_path):
    import pyarrow as pa

    holed = pa.array([1.0, 2.0, None], pa.float32())
    path = parquet_of(tmp_path / "split.parquet", bid=holed, label=holed.fill_null(0))
    with pytest.raises(CodecError, match="row 2: bid is empty"):
        read_table(path)


def test_parquet_without_features_or_rows_is_refused(tmp_path):
    only_label = parquet_of(tmp_path / "one.parquet", label=np.zeros(2, np.float32))
    with pytest.raises(DataError, match="no column beside label"):
        read_table(only_label)
    no_rows = parquet_of(tmp_path / "none.parquet", bid=np.zeros(0, np.float32))
    with pytest.raises(CodecError, match="holds no rows"):
        read_table(no_rows)


def test_a_label_in_any_column_of_parquet_is_found(tmp_path):
    bid, label = np.array([3, 4], np.float32), np.array([0, 1], np.float32)
    read_ND, read_N = read_table(parquet_of(tmp_path / "split.parquet", bid=bid, label=label))
    assert (read_ND.tolist(), read_N.tolist()) == ([[3], [4]], [0, 1])
