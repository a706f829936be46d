"""Weighted sums of rows, held to numpy's to the last bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trademl.train import row_sums
from trademl.train.row_sums import weighted_sums

# each width up to two blocks, those beside a power of two, and some of the rest
WIDTHS = sorted(
    {*range(1, 270), 511, 512, 513, 605, 1023, 1024, 1025, 1300}
    | set(np.random.default_rng(0).integers(270, 1300, 60).tolist())
)


@pytest.fixture(autouse=True)
def _few_rows_go_the_short_way_too(monkeypatch):
    monkeypatch.setattr(row_sums, "_FEWEST", 1)


def numpys(rows_ND, weights_D):
    products_ND = np.multiply(np.ascontiguousarray(rows_ND), weights_D, dtype=np.float64)
    return np.add.reduce(products_ND, axis=1)


def assert_same_bits(found_N, expected_N):
    np.testing.assert_array_equal(found_N.view(np.int64), expected_N.view(np.int64))


def draw(n, d, seed=0):
    """Return rows whose sums depend on their order, and weights."""
    rng = np.random.default_rng(seed)
    powers_ND = 10.0 ** rng.integers(-9, 9, (n, d))
    return (rng.standard_normal((n, d)) * powers_ND).astype(np.float32), rng.standard_normal(d)


def test_rows_of_every_width_add_up_as_in_numpy():
    for d in WIDTHS:
        rows_ND, weights_D = draw(7, d, seed=d)

        assert_same_bits(weighted_sums(rows_ND, weights_D), numpys(rows_ND, weights_D))


@pytest.mark.parametrize("d", [16_384, 16_385, 40_000])
def test_wide_rows_too(d):
    rows_ND, weights_D = draw(3, d)

    assert_same_bits(weighted_sums(rows_ND, weights_D), numpys(rows_ND, weights_D))


def test_code_grows_no_further_than_the_widest_row_it_is_made_for():
    row_sums._summing.cache_clear()

    weighted_sums(*draw(3, 16_385))

    assert row_sums._summing.cache_info().currsize == 0


def test_few_rows_need_no_code(monkeypatch):
    monkeypatch.undo()
    row_sums._summing.cache_clear()
    rows_ND, weights_D = draw(63, 605)

    found_N = weighted_sums(rows_ND, weights_D)

    assert row_sums._summing.cache_info().currsize == 0
    assert_same_bits(found_N, numpys(rows_ND, weights_D))
    weighted_sums(*draw(64, 605))
    assert row_sums._summing.cache_info().currsize == 1


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32, ">f4"])
def test_numbers_of_other_types(kind):
    rows_ND, weights_D = draw(50, 605)
    rows_ND = np.clip(rows_ND, -1000, 1000).astype(kind)

    assert_same_bits(weighted_sums(rows_ND, weights_D), numpys(rows_ND, weights_D))


@pytest.mark.parametrize(
    "place",
    [
        np.asfortranarray,
        lambda rows_ND: rows_ND[::-1],
        lambda rows_ND: rows_ND[::3],
        lambda rows_ND: rows_ND[:, ::-1],
        lambda rows_ND: np.broadcast_to(rows_ND[0], rows_ND.shape),
        lambda rows_ND: rows_ND[:0],
        lambda rows_ND: rows_ND[:1],
    ],
    ids=["by column", "backwards", "each third", "columns backwards", "one row", "none", "first"],
)
def test_rows_anywhere_in_memory(place):
    rows_ND, weights_D = draw(500, 605)
    placed_ND = place(rows_ND)

    assert_same_bits(weighted_sums(placed_ND, weights_D), numpys(placed_ND, weights_D))


@pytest.mark.parametrize("shift", range(4))
def test_rows_within_frames_at_any_address(shift):
    rows_ND, weights_D = draw(50, 605)
    frame = np.dtype([("head", "V13"), ("features", "<f4", 605), ("tail", "V2")])
    frames = np.zeros(50 * frame.itemsize + 4, np.uint8)[shift:][: 50 * frame.itemsize].view(frame)
    frames["features"] = rows_ND

    found_N = weighted_sums(frames["features"], weights_D)

    assert_same_bits(found_N, numpys(rows_ND, weights_D))


@pytest.mark.parametrize("d", [1, 5, 8, 9, 605])
def test_a_sum_of_negative_zeros_is_the_zero_of_numpy(d):
    rows_ND = np.full((2, d), -0.0, np.float32)

    assert_same_bits(weighted_sums(rows_ND, np.ones(d)), numpys(rows_ND, np.ones(d)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("d", [3, 605])
def test_what_is_no_finite_number_is_none_in_the_sum(bad, d):
    rows_ND, weights_D = draw(9, d)
    rows_ND[4, d // 2] = bad

    found_N = weighted_sums(rows_ND, weights_D)

    assert np.flatnonzero(~np.isfinite(found_N)).tolist() == [4]


def test_code_that_several_threads_made_at_once_lasts_while_it_runs():
    row_sums._summing.cache_clear()
    rows_ND, weights_D = draw(200, 605)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: weighted_sums(rows_ND, weights_D), range(64)))

    for found_N in found:
        assert_same_bits(found_N, numpys(rows_ND, weights_D))
