"""Folds: no training row knows of a test row, and nothing is left out without need."""

from __future__ import annotations

from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trademl.errors import DataError
from trademl.etl.folds import Fold, backtest_paths, combinatorial_purged, walk_forward


@st.composite
def histories(draw):
    """Return as-of, start and exit of orders, a few of which sit over a closed market."""
    n = draw(st.integers(20, 120))
    steps = draw(st.lists(st.integers(0, 20) | st.integers(0, 400), min_size=n, max_size=n))
    holds = draw(st.lists(st.integers(0, 30) | st.integers(0, 900), min_size=n, max_size=n))
    lookbacks = draw(st.lists(st.integers(0, 40), min_size=n, max_size=n))
    as_of = np.cumsum(steps)
    return as_of, as_of - np.array(lookbacks), as_of + np.array(holds)


def until_none_is_left(folds):
    """Yield folds up to the first that has no training row."""
    try:
        yield from folds
    except DataError as error:
        if "no row is left to train on" not in str(error):
            raise


def overlap(start, end, rows, others, extra=0):
    """Return for each of ``rows`` whether it overlaps one of ``others``, by plain comparison."""
    begun = start[rows][:, None] <= end[others] + extra
    return (begun & (start[others] <= end[rows][:, None])).any(axis=1)


def span_share(as_of, embargo):
    return int(embargo * (as_of[-1] - as_of[0]))


EMBARGOES = st.sampled_from([0.0, 0.01, 0.1])


@settings(deadline=None)
@given(histories(), st.integers(2, 6), st.data(), EMBARGOES)
def test_no_training_interval_overlaps_a_test_interval_in_any_combination(
    history, n_groups, data, embargo
):
    as_of, start, end = history
    k = data.draw(st.integers(1, n_groups - 1))
    folds = combinatorial_purged(*history, n_groups=n_groups, n_test_groups=k, embargo=embargo)
    for fold in until_none_is_left(folds):
        assert not overlap(start, end, fold.train_rows, fold.test_rows).any()
        rest = np.setdiff1d(np.arange(len(as_of)), fold.test_rows)
        purged = overlap(start, end, rest, fold.test_rows)
        near = overlap(start, end, rest, fold.test_rows, span_share(as_of, embargo))
        assert fold.train_rows.tolist() == rest[~near].tolist()  # and no row is left out in vain
        assert (fold.n_purged, fold.n_embargoed) == (purged.sum(), (near & ~purged).sum())


@settings(deadline=None)
@given(histories(), st.integers(1, 40), st.integers(1, 40), st.booleans(), EMBARGOES)
def test_no_training_interval_overlaps_a_test_interval_walking_forward(
    history, n_train, n_test, anchored, embargo
):
    as_of, start, end = history
    assume(n_train < len(as_of))
    folds = walk_forward(
        *history, n_train=n_train, n_test=n_test, anchored=anchored, embargo=embargo
    )
    for fold in until_none_is_left(folds):
        first = fold.test_rows[0]
        window = np.arange(0 if anchored else first - n_train, first)
        purged = overlap(start, end, window, fold.test_rows)
        first_read = start[fold.test_rows].min()
        near = end[window] >= first_read - span_share(as_of, embargo)
        assert not overlap(start, end, fold.train_rows, fold.test_rows).any()
        assert fold.train_rows.tolist() == window[~purged & ~near].tolist()
        assert (fold.n_purged, fold.n_embargoed) == (purged.sum(), (near & ~purged).sum())


def evenly(n, *, lookback=0, hold=1):
    as_of = np.arange(n) * 10
    return as_of, as_of - lookback, as_of + hold


def test_walking_forward_tests_each_later_row_once():
    folds = list(walk_forward(*evenly(100), n_train=30, n_test=20, embargo=0))
    assert np.concatenate([fold.test_rows for fold in folds]).tolist() == list(range(30, 100))
    assert [len(fold.test_rows) for fold in folds] == [20, 20, 20, 10]


def test_a_rolling_window_moves_and_an_anchored_one_grows():
    rolling = walk_forward(*evenly(100), n_train=30, n_test=20, embargo=0)
    anchored = walk_forward(*evenly(100), n_train=30, n_test=20, embargo=0, anchored=True)
    assert [(f.train_rows[0], len(f.train_rows)) for f in rolling] == [
        (0, 30),
        (20, 30),
        (40, 30),
        (60, 30),
    ]
    assert [(f.train_rows[0], len(f.train_rows)) for f in anchored] == [
        (0, 30),
        (0, 50),
        (0, 70),
        (0, 90),
    ]


def test_the_embargo_of_a_walk_is_a_gap_before_each_test_block():
    folds = walk_forward(*evenly(101), n_train=50, n_test=20, embargo=0.05)  # 50 of 1000: 5 rows
    for fold in folds:
        assert fold.train_rows[-1] == fold.test_rows[0] - 6
        assert (fold.n_purged, fold.n_embargoed) == (0, 5)


def test_both_sides_of_a_test_block_are_purged():
    history = evenly(100, lookback=20, hold=30)  # a row overlaps those up to 50 before and after
    middle = list(combinatorial_purged(*history, n_groups=5, n_test_groups=1, embargo=0))[2]
    assert middle.train_rows.tolist() == [*range(35), *range(65, 100)]
    assert (middle.n_purged, middle.n_embargoed) == (10, 0)


def test_the_embargo_of_a_combination_follows_each_test_block():
    history = evenly(101)  # 3 % of the span: three rows
    folds = list(combinatorial_purged(*history, n_groups=5, n_test_groups=2, embargo=0.0305))
    first_and_third = folds[1]
    assert first_and_third.train_rows.tolist() == [*range(24, 41), *range(64, 101)]
    assert first_and_third.n_embargoed == 6


def test_a_row_held_over_a_closed_market_purges_what_it_overlaps_and_no_more():
    as_of, start, end = evenly(100)
    end[25] = as_of[70]
    held = list(combinatorial_purged(as_of, start, end, n_groups=5, n_test_groups=1, embargo=0))
    assert held[1].train_rows.tolist() == [*range(20), *range(71, 100)]
    assert 25 not in held[3].train_rows  # it reaches into rows 60 to 79
    assert 26 in held[3].train_rows


def test_combinations_have_the_number_of_folds_and_paths_of_the_book():
    folds = list(combinatorial_purged(*evenly(120), n_groups=6, n_test_groups=2, embargo=0))
    paths = backtest_paths(folds, [np.zeros(len(fold.test_rows)) for fold in folds])
    assert (len(folds), paths.shape) == (comb(6, 2), (5, 120))


@given(st.integers(2, 6), st.data())
def test_paths_use_every_score_once_and_are_whole(n_groups, data):
    k = data.draw(st.integers(1, n_groups - 1))
    folds = list(combinatorial_purged(*evenly(60), n_groups=n_groups, n_test_groups=k, embargo=0))
    scores = [1000.0 * number + fold.test_rows for number, fold in enumerate(folds)]
    paths = backtest_paths(folds, scores)
    assert paths.shape == (comb(n_groups - 1, k - 1), 60)
    assert sorted(paths.ravel()) == sorted(np.concatenate(scores))
    assert (paths % 1000 == np.arange(60)).all()
    assert all((earlier < later).all() for earlier, later in pairwise(paths))


def test_a_long_history_needs_no_comparison_of_all_with_all():
    as_of, start, end = evenly(300_000, lookback=600, hold=600)
    folds = list(combinatorial_purged(as_of, start, end, n_groups=6, n_test_groups=2))
    assert len(folds) == 15  # 300,000 squared would be 90 GB


# Refused


def test_a_fold_without_training_rows_says_why():
    as_of, start, end = evenly(40, hold=10_000)
    with pytest.raises(DataError, match=r"test rows 10 to 19: 10 are purged and 0 embargoed"):
        list(walk_forward(as_of, start, end, n_train=10, n_test=10))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: walk_forward(*h, n_train=0, n_test=5), "n_train is 0 and n_test 5"),
        (lambda h: walk_forward(*h, n_train=5, n_test=0), "n_train is 5 and n_test 0"),
        (lambda h: walk_forward(*h, n_train=5, n_test=5, embargo=1), "embargo is 1"),
        (lambda h: combinatorial_purged(*h, n_groups=3, n_test_groups=3), "n_test_groups is 3"),
        (lambda h: combinatorial_purged(*h, n_groups=3, n_test_groups=0), "n_test_groups is 0"),
        (lambda h: combinatorial_purged(*h, embargo=-0.1), "embargo is -0.1"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_fold(call, message):
    with pytest.raises(ValueError, match=message):
        call(evenly(20))


def test_too_few_rows_are_refused_before_any_fold():
    with pytest.raises(DataError, match="20 rows, expected more than the 20 of n_train"):
        walk_forward(*evenly(20), n_train=20, n_test=1)
    with pytest.raises(DataError, match="5 rows, expected at least one for each of 6 groups"):
        combinatorial_purged(*evenly(5))


def test_rows_out_of_order_are_refused_before_any_fold():
    as_of = np.array([0, 20, 10])
    for refuse in (
        lambda: walk_forward(as_of, as_of, as_of, n_train=1, n_test=1),
        lambda: combinatorial_purged(as_of, as_of, as_of, n_groups=2, n_test_groups=1),
    ):
        with pytest.raises(DataError, match="row 2 was decided at 10, before row 1 at 20"):
            refuse()


def test_paths_need_every_row_tested_equally_often():
    walk = list(walk_forward(*evenly(20), n_train=5, n_test=5, embargo=0))
    with pytest.raises(DataError, match="row 5 is tested 1 times and row 0 0 times"):
        backtest_paths(walk, [np.zeros(5)] * 3)


def test_paths_need_a_score_for_each_test_row():
    fold = Fold(np.array([2]), np.array([0, 1]), 0, 0)
    with pytest.raises(DataError, match=r"scores of fold 0 have shape \(3,\), expected \(2,\)"):
        backtest_paths([fold], [np.zeros(3)])
    with pytest.raises(DataError, match="1 folds and 0 scores"):
        backtest_paths([fold], [])
