"""Compiled reading of numbers, held to Python's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trademl.serve import number_text, row_sum
from trademl.serve.number_text import plain_csv_rows, plain_json_rows

MOST = 100
FINITE = st.floats(-3e38, 3e38, allow_nan=False)
DECIMALS = st.builds(
    "{}{}.{}e{}".format,
    st.sampled_from(["", "-"]),
    st.integers(0, 10**12),
    st.from_regex(r"[0-9]{1,12}", fullmatch=True),
    st.integers(-60, 40),
)


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    """Compile before the first example, which hypothesis would find too slow."""
    number_text.warm_up()
    row_sum.warm_up()


def read(number):
    """Return the one number of a body, None where the slower reader must decide."""
    rows_ND = plain_csv_rows(number.encode(), 1, MOST)
    return None if rows_ND is None else rows_ND[0, 0]


def python_says(number):
    with np.errstate(over="ignore"):
        return np.float32(float(number))


def same_bits(a, b):
    return np.float32(a).tobytes() == np.float32(b).tobytes()


@given(DECIMALS | FINITE.map(repr) | st.integers(-(10**25), 10**25).map(str))
@example("18446744073709551616")  # 2**64: digits that wrap around to 0
@example("0.00000000000000000000000000000000000001")
@example("1e-400")
@example("-0.0")
@example("9999999999999999999")
def test_a_number_reads_as_python_reads_it_or_is_left_to_python(number):
    found = read(number)

    assert found is None or same_bits(found, python_says(number))


@given(
    value=st.floats(2.0**-126, 2.0**127, width=32),
    steps=st.integers(-20, 20),
    digits=st.integers(15, 19),
)
def test_beside_the_middle_of_two_float32_no_bit_is_wrong(value, steps, digits):
    above = float(np.nextafter(np.float32(value), np.float32(np.inf)))
    middle = (value + above) / 2 + steps * math.ulp(value)
    number = f"{middle:.{digits - 1}e}"
    found = read(number)

    assert found is None or same_bits(found, python_says(number))


@given(st.floats(1e-20, 1e20).map(repr) | FINITE.map(lambda x: f"{x:.6f}" if abs(x) < 1e9 else "1"))
def test_usual_numbers_need_no_second_reading(number):
    found = read(number)

    if found is None:  # nothing but the doubt of one in thirty million
        low = int(np.float64(float(number)).view(np.uint64)) & (2**29 - 1)
        assert abs(low - 2**28) <= 16


@pytest.mark.parametrize(
    "number",
    [
        "",
        "-",
        "+1",
        "01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "nan",
        "inf",
        "1_0",
        "0x1",
        "1e39",
        "1 2",
        "--1",
    ],
)
def test_what_is_no_plain_number_is_left_to_the_reader_of_all_forms(number):
    assert read(number) is None
    assert plain_json_rows(b'{"instances":[{"features":[%b]}]}' % number.encode(), 1, MOST) is None


def test_json_may_have_spaces_and_several_rows():
    body = b' { "instances" : [\n{"features": [1, -2.5e0]},\t{"features":[ 3,4]} ] }\r\n'

    rows_ND = plain_json_rows(body, 2, MOST)

    assert rows_ND is not None
    assert rows_ND.tolist() == [[1.0, -2.5], [3.0, 4.0]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"instances":[]}',
        b'{"instances":[{"features":[1]}]}',
        b'{"instances":[{"features":[1,2,3]}]}',
        b'{"instances":[{"features":[1,[2]]}]}',
        b'{"instances":[{"features":[1,2]}]}x',
        b'{"instances":[{"features":[1,2]}],"a":1}',
        b'{"instances":[{"features":[1,2]},{"features":[3,4]}',
        b'{"inst ances":[{"features":[1,2]}]}',
        b'{"instances":[{"data":{"features":{"values":[1,2]}}}]}',
    ],
)
def test_other_json_is_left_to_the_reader_of_all_forms(body):
    assert plain_json_rows(body, 2, MOST) is None


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"1\n", b"1,2,3\n", b"1,2\n\n", b"1,2\r", b"1,2\n3\n"]
)
def test_other_csv_is_left_to_the_reader_of_all_forms(body):
    rows_ND = plain_csv_rows(body, 2, MOST)

    assert rows_ND is None or rows_ND.tolist() == [[1.0, 2.0]]


def test_a_small_body_gets_no_large_matrix():
    assert plain_csv_rows(b"1\n" * 50, 10**9, MOST) is None
    assert plain_csv_rows(b"1\n" * (MOST + 1), 1, MOST) is None


@given(st.text(alphabet='0123456789+-.eE,\r\n\t []{}":nulltrfas').map(str.encode))
def test_bytes_are_never_read_beyond_their_end(body):
    for size in (1, 2):
        for reader in (plain_csv_rows, plain_json_rows):
            rows_ND = reader(body, size, MOST)
            assert rows_ND is None or np.isfinite(rows_ND).all()
