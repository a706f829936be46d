"""One split: order, shares, purge, embargo; and what the random split says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import DataError
from trademl.etl.splits import (
    Part,
    SplitConfig,
    chronological_split,
    split_rows,
    split_warnings,
)


def split(as_of, *, lookback, hold, config=SplitConfig()):  # noqa: B008
    as_of = np.asarray(as_of, np.int64)
    return chronological_split(as_of, as_of - lookback, as_of + np.asarray(hold), config)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lookback=st.integers(0, 200),
    longest=st.integers(1, 300),
    embargo=st.sampled_from([0.0, 0.01, 0.05]),
)
def test_no_interval_of_one_part_overlaps_one_of_another(seed, lookback, longest, embargo):
    rng = np.random.default_rng(seed)
    as_of = np.sort(rng.integers(0, 20_000, 2000))
    hold = rng.integers(1, longest + 1, 2000)
    hold[rng.random(2000) < 0.01] += 3000  # a few orders sit over a closed market
    part = split(as_of, lookback=lookback, hold=hold, config=SplitConfig(embargo=embargo))
    start, end = as_of - lookback, as_of + hold
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        assert end[part == earlier].max() < start[part == later].min()


def test_shares_without_overlap():
    part = split(np.arange(1000) * 10, lookback=0, hold=1, config=SplitConfig(embargo=0.0))
    assert [int((part == p).sum()) for p in Part] == [700, 150, 150, 0, 0]


def test_embargo_is_a_gap_after_each_boundary():
    as_of = np.arange(1000) * 10
    part = split(as_of, lookback=0, hold=1, config=SplitConfig(embargo=0.01))
    gap = 0.01 * (as_of[-1] - as_of[0])  # 99.9: rows at 0, 10, ... 90 after a boundary
    assert np.flatnonzero(part == Part.EMBARGOED).tolist() == [*range(700, 710), *range(850, 860)]
    assert as_of[part == Part.VALIDATION][0] - as_of[700] >= gap


def test_too_few_rows_are_counted_by_reason():
    with pytest.raises(DataError, match=r"40 rows leave .* for .* expected at least 20"):
        split(np.arange(40) * 10, lookback=0, hold=1)


def test_nothing_to_split():
    with pytest.raises(DataError, match="nothing to split"):
        split([], lookback=0, hold=[])


def test_rows_out_of_order_are_named():
    with pytest.raises(DataError, match="row 2 was decided at 5, before row 1 at 10"):
        split([0, 10, 5], lookback=0, hold=1)


def random_rows(n, *, hold, seed=7):
    as_of = np.arange(n) * 10
    config = SplitConfig(method="random", seed=seed)
    intervals = as_of - 0, as_of + hold
    return split_rows(as_of, *intervals, config), intervals, config


def test_a_random_split_keeps_the_shares_and_drops_no_row():
    part, _, _ = random_rows(1000, hold=500)
    assert [int((part == p).sum()) for p in Part] == [700, 150, 150, 0, 0]
    assert (np.diff(part[:100]) != 0).any()


def test_a_random_split_repeats_with_its_seed():
    first, again, other = (random_rows(1000, hold=1, seed=seed)[0] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_a_random_split_warns_with_the_number_of_rows_that_leak():
    part, intervals, config = random_rows(1000, hold=10)  # a row touches both its neighbours
    train = np.flatnonzero(part == Part.TRAIN)
    judged = np.flatnonzero(part != Part.TRAIN)
    n_leaked = sum(bool({row - 1, row + 1} & set(train.tolist())) for row in judged.tolist())
    (warning,) = split_warnings(part, *intervals, config)
    assert f"{n_leaked} of 300 validation and test rows overlap a training row" in warning
    assert "too good" in warning


def test_the_chronological_split_has_nothing_to_warn_of():
    as_of = np.arange(1000) * 10
    part = split_rows(as_of, as_of, as_of + 1, SplitConfig())
    assert split_warnings(part, as_of, as_of + 1, SplitConfig()) == []


def test_too_few_rows_for_a_random_split():
    with pytest.raises(DataError, match="40 rows leave 6 for validation"):
        random_rows(40, hold=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "kfold"}, "method is 'kfold', expected chronological or random"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_setting_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SplitConfig(**wrong)
