"""Overlaps of intervals, against the plain comparison of each with each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.errors import DataError
from trademl.etl.intervals import check_intervals, overlaps_any

INTERVALS = st.lists(
    st.tuples(st.integers(-50, 50), st.integers(0, 5) | st.integers(0, 80)), max_size=30
)


def ends(intervals):
    start, length = np.array(intervals, np.int64).reshape(-1, 2).T
    return start, start + length


@given(INTERVALS, INTERVALS)
def test_overlaps_are_those_of_the_plain_comparison(ours, others):
    (start, end), (other_start, other_end) = ends(ours), ends(others)
    plain = (start[:, None] <= other_end) & (other_start <= end[:, None])
    assert overlaps_any(start, end, other_start, other_end).tolist() == plain.any(axis=1).tolist()


def test_intervals_that_share_one_instant_overlap():
    at = np.array([5])
    assert overlaps_any(at - 5, at, at, at + 5).all()
    assert not overlaps_any(at - 5, at, at + 1, at + 5).any()


@pytest.mark.parametrize(
    ("as_of", "start", "end", "message"),
    [
        ([1, 0], [0, 0], [2, 2], "row 1 was decided at 0, before row 0 at 1: sort"),
        ([1, 2], [0, 3], [2, 4], "row 1 stands for 3 to 4, which does not hold its as-of time 2"),
        ([1, 2], [0, 0], [0, 4], "row 0 stands for 0 to 0, which does not hold its as-of time 1"),
        ([1, 2], [0], [2, 4], "three vectors of one length"),
    ],
)
def test_rows_that_cannot_be_are_named(as_of, start, end, message):
    with pytest.raises(DataError, match=message):
        check_intervals(np.array(as_of), np.array(start), np.array(end))
