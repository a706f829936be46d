"""Chronological splits: order, shares, purge, embargo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import DataError
from trademl.etl.splits import Part, SplitConfig, chronological_split


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
