"""Average uniqueness: by hand, by brute force, and as an effective sample size."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.stats.uniqueness import average_uniqueness, effective_size


def brute_force(start, end):
    alive = np.array([(start <= t) & (t < end) for t in range(int(end.max()))])
    n_alive = np.maximum(alive.sum(1), 1)
    return np.array([np.mean(1 / n_alive[a:b]) for a, b in zip(start, end, strict=True)])


def test_two_that_share_half_of_their_lives():
    # each is alone for one unit and shared by two for the other: (1 + 1/2) / 2
    np.testing.assert_allclose(average_uniqueness(np.array([0, 1]), np.array([2, 3])), 0.75)


def test_every_moment_counted_by_hand_gives_the_same():
    rng = np.random.default_rng(0)
    start = rng.integers(0, 500, 80)
    end = start + rng.integers(1, 60, 80)

    np.testing.assert_allclose(average_uniqueness(start, end), brute_force(start, end))


def test_labels_that_touch_do_not_overlap():
    assert average_uniqueness(np.array([0, 5]), np.array([5, 9])).tolist() == [1.0, 1.0]


def test_equal_labels_share_everything():
    np.testing.assert_allclose(average_uniqueness(np.full(4, 7), np.full(4, 11)), 0.25)


def test_a_life_of_no_length_is_still_a_label():
    assert average_uniqueness(np.array([3, 3]), np.array([3, 3])).tolist() == [0.5, 0.5]


def test_no_labels_hold_no_evidence():
    assert effective_size(np.empty(0, np.int64), np.empty(0, np.int64)) == 0.0


def test_nanoseconds_of_today_lose_nothing():
    start = np.array([0, 1]) + 1_700_000_000_000_000_000

    np.testing.assert_allclose(average_uniqueness(start, start + 2), 0.75)


def test_it_is_the_size_that_explains_the_variance_of_overlapping_profits():
    # profits of a random walk over windows of 10 steps, one begun every second step
    rng = np.random.default_rng(1)
    walks = np.cumsum(rng.normal(size=(4000, 411)), axis=1)
    start = np.arange(0, 400, 2)
    profit = walks[:, start + 10] - walks[:, start]

    explained = profit.var() / profit.mean(axis=1).var()

    assert effective_size(start, start + 10) == pytest.approx(explained, rel=0.06)
