"""The lower bound of a mean: known distributions, dependent rows, too few rows."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.stats.bootstrap import lower_bound_of_mean, overlap_length


def bound(value, block_length=1, confidence=0.95, seed=0):
    return lower_bound_of_mean(value, block_length=block_length, confidence=confidence, seed=seed)


def test_bound_of_independent_rows_is_near_the_normal_one():
    value = np.random.default_rng(1).normal(0.3, 2.0, 3000)

    expected = value.mean() - 1.6449 * value.std() / np.sqrt(3000)

    assert bound(value) == pytest.approx(expected, abs=0.006)


def test_bound_of_equal_rows_is_their_value():
    assert bound(np.full(50, 2.5), block_length=4) == pytest.approx(2.5)


def test_repeated_rows_are_not_taken_for_more_evidence():
    once = np.random.default_rng(2).normal(0.1, 1.0, 200)
    eight_times = np.repeat(once, 8)

    honest = bound(eight_times, block_length=16)

    assert honest < bound(eight_times, block_length=1) - 0.05
    assert honest == pytest.approx(bound(once, block_length=2), abs=0.03)


def test_same_seed_gives_the_same_bound():
    value = np.random.default_rng(3).normal(size=100)

    assert bound(value, 3, seed=5) == bound(value, 3, seed=5) != bound(value, 3, seed=6)


@pytest.mark.parametrize(("n", "block_length"), [(0, 1), (4, 1), (49, 10)])
def test_fewer_than_five_blocks_give_no_bound(n, block_length):
    assert bound(np.ones(n), block_length) is None


def test_higher_confidence_lowers_the_bound():
    value = np.random.default_rng(4).normal(size=400)

    assert bound(value, confidence=0.995) < bound(value, confidence=0.9)


def test_disjoint_labels_need_only_the_cube_root():
    start = np.arange(1000) * 10

    assert overlap_length(start, start + 5) == 10


def test_each_label_that_spans_the_next_seven_makes_blocks_of_eight():
    start = np.arange(100) * 10

    # a label of 75 ns: seven later rows begin inside, fewer for the last seven rows
    assert overlap_length(start, start + 75) == 8


def test_overlap_never_exceeds_the_rows():
    assert overlap_length(np.arange(3), np.full(3, 10**9)) <= 3
    assert overlap_length(np.array([], np.int64), np.array([], np.int64)) == 1
