"""The 600-lag recipe, on recordings small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_cases import make_quotes, random_walk
from trademl.errors import DataError
from trademl.etl.features import (
    QUOTE_COLUMNS,
    FeatureRecipe,
    check_density,
    feature_matrix,
    has_history,
)
from trademl.market.quotes import NS_PER_S
from trademl.market.seconds import second_grid

N_QUOTE = len(QUOTE_COLUMNS)


def tamper(quotes, after):
    """Change every quote behind index ``after``, even those of the same instant."""
    rng = np.random.default_rng(1)
    for name in ("bid", "ask", "mid_open", "high", "low"):
        getattr(quotes, name)[after + 1 :] += rng.normal(0, 100, len(quotes) - after - 1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), per_s=st.sampled_from([0.5, 3.0, 20.0]))
def test_no_feature_moves_when_every_later_tick_changes(seed, per_s):
    quotes = random_walk(400, seed=seed, per_s=per_s)
    recipe = FeatureRecipe(n_lags=8, max_gap_s=30)
    at = np.arange(100, 300, 40)
    at = at[has_history(quotes, second_grid(quotes), at, recipe)]
    before = feature_matrix(quotes, at, recipe)
    for row, index in enumerate(at):
        changed = random_walk(400, seed=seed, per_s=per_s)
        tamper(changed, index)
        np.testing.assert_array_equal(
            feature_matrix(changed, at[row : row + 1], recipe)[0], before[row]
        )


def test_columns_are_quote_then_lags_oldest_first_relative_to_mid():
    quotes = make_quotes([100.0, 101.0, 103.0, 110.0])
    row = feature_matrix(quotes, np.array([3]), FeatureRecipe(n_lags=3))[0]
    assert row.dtype == np.float32
    assert row[:N_QUOTE].tolist() == [-0.125, 0.125, -10.0, 0.0, -10.0]
    assert row[N_QUOTE:].tolist() == [-10.0, -9.0, -7.0]


def test_a_lag_is_the_mean_of_its_second():
    quotes = make_quotes([100.0, 102.0, 200.0], seconds=[0.1, 0.9, 1.5])
    assert feature_matrix(quotes, np.array([2]), FeatureRecipe(n_lags=1))[0, -1] == -99.0


def test_the_as_of_second_itself_is_no_lag():
    quotes = make_quotes([100.0, 150.0, 160.0], seconds=[0, 1.1, 1.2])
    assert feature_matrix(quotes, np.array([2]), FeatureRecipe(n_lags=1))[0, -1] == -60.0


def test_a_silent_second_carries_the_last_one_forward():
    quotes = make_quotes([100.0, 101.0, 105.0], seconds=[0, 1, 5])
    lags = feature_matrix(quotes, np.array([2]), FeatureRecipe(n_lags=5))[0, N_QUOTE:]
    assert lags.tolist() == [-5.0, -4.0, -4.0, -4.0, -4.0]


def test_a_longer_silence_than_allowed_drops_the_row():
    quotes = make_quotes([100.0, 101.0, 105.0], seconds=[0, 1, 5])
    grid = second_grid(quotes)
    kept = [
        bool(has_history(quotes, grid, np.array([2]), FeatureRecipe(n_lags=5, max_gap_s=gap))[0])
        for gap in (2, 3)
    ]
    assert kept == [False, True]


def test_history_is_never_filled_from_later():
    quotes = make_quotes([np.nan, 101.0, 105.0], ask=[100.0, 101.25, 105.25])
    recipe = FeatureRecipe(n_lags=2)  # the first second has no executable quote
    assert not has_history(quotes, second_grid(quotes), np.array([2]), recipe)[0]


def test_short_history_names_the_row():
    with pytest.raises(DataError, match="row 1 lacks part of the 3 s of history"):
        feature_matrix(random_walk(50), np.array([40, 1]), FeatureRecipe(n_lags=3))


def test_flagged_quotes_leave_no_trace_in_lags():
    clean = make_quotes([100.0, 101.0, 102.0], seconds=[0.1, 1.1, 2.1])
    dirty = make_quotes(
        [100.0, 999.0, 101.0, 102.0],
        ask=[100.25, 9.0, 101.25, 102.25],
        seconds=[0.1, 1.0, 1.1, 2.1],
    )
    recipe = FeatureRecipe(n_lags=2)
    np.testing.assert_array_equal(
        feature_matrix(dirty, np.array([3]), recipe)[0, N_QUOTE:],
        feature_matrix(clean, np.array([2]), recipe)[0, N_QUOTE:],
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_equal_to_a_plain_reference(seed):
    quotes = random_walk(300, seed=seed, per_s=2)
    recipe = FeatureRecipe(n_lags=10, max_gap_s=5)
    at = np.arange(60, 300, 20)
    kept = has_history(quotes, second_grid(quotes), at, recipe)
    reference = [plain_row(quotes, i, 10, 5) for i in at]
    assert [r is not None for r in reference] == kept.tolist()
    expected = np.array([r for r in reference if r is not None], np.float32)
    if kept.any():
        np.testing.assert_array_equal(feature_matrix(quotes, at[kept], recipe), expected)


def plain_row(quotes, index, n_lags, max_gap_s):
    """One row in plain Python: second by second, backwards from the as-of second."""
    mids = {}
    for ts, mid in zip(quotes.ts_event // NS_PER_S, quotes.mid, strict=True):
        mids.setdefault(int(ts), []).append(mid)
    second = int(quotes.ts_event[index] // NS_PER_S)
    mid = quotes.mid[index]
    lags = []
    for lag in range(n_lags, 0, -1):
        source = next(
            (s for s in range(second - lag, second - lag - max_gap_s - 1, -1) if s in mids), None
        )
        if source is None:
            return None
        lags.append(float(np.add.reduce(mids[source])) / len(mids[source]) - mid)
    return [getattr(quotes, n)[index] - mid for n in QUOTE_COLUMNS] + lags


def test_sparse_recording_is_refused_with_its_step():
    with pytest.raises(DataError, match="a quote comes every 60 s"):
        check_density(make_quotes([1.0] * 5, seconds=np.arange(5) * 60))


def test_schema_names_every_column_and_its_latest_time():
    columns = FeatureRecipe().columns()
    assert len(columns) == 605
    assert columns[5]["name"] == "mid_lag_600s"
    assert columns[-1]["reads_up_to"] == "end of the second 1 s before the as-of second"
