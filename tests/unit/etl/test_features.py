"""The 600-lag recipe, on recordings small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_cases import START_S, make_quotes, random_walk
from trademl.errors import ConfigError, DataError
from trademl.etl.features import (
    check_density,
    feature_matrix,
    prepare,
    usable_rows,
)
from trademl.etl.recipe import QUOTE_COLUMNS, FeatureRecipe, Indicator, Lags
from trademl.market.quotes import NS_PER_S

N_QUOTE = len(QUOTE_COLUMNS)
EVERYTHING = {
    "spread": True,
    "volatility_s": (5, 9),
    "indicators": (Indicator("RSI", 2, {"timeperiod": 2}), Indicator("SMA", 3, {"timeperiod": 2})),
    "scaling": "volatility",
    "scaling_window_s": 7,
}


def tamper(quotes, after):
    """Change every quote behind index ``after``, even those of the same instant."""
    rng = np.random.default_rng(1)
    for name in ("bid", "ask", "mid_open", "high", "low"):
        getattr(quotes, name)[after + 1 :] += rng.normal(0, 100, len(quotes) - after - 1)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    per_s=st.sampled_from([0.5, 3.0, 20.0]),
    more=st.sampled_from([{}, EVERYTHING, {"scaling": "returns"}]),
)
def test_no_feature_moves_when_every_later_tick_changes(seed, per_s, more):
    quotes = random_walk(400, seed=seed, per_s=per_s)
    recipe = FeatureRecipe(lags=(Lags(8),), max_gap_s=30, **more)
    at = np.arange(100, 300, 40)
    at = at[usable_rows(quotes, at, recipe)]
    before = feature_matrix(quotes, at, recipe)
    for row, index in enumerate(at):
        changed = random_walk(400, seed=seed, per_s=per_s)
        tamper(changed, index)
        np.testing.assert_array_equal(
            feature_matrix(changed, at[row : row + 1], recipe)[0], before[row]
        )


def test_columns_are_quote_then_lags_oldest_first_relative_to_mid():
    quotes = make_quotes([100.0, 101.0, 103.0, 110.0])
    row = feature_matrix(quotes, np.array([3]), FeatureRecipe(lags=(Lags(3),)))[0]
    assert row.dtype == np.float32
    assert row[:N_QUOTE].tolist() == [-0.125, 0.125, -10.0, 0.0, -10.0]
    assert row[N_QUOTE:].tolist() == [-10.0, -9.0, -7.0]


def test_a_lag_is_the_mean_of_its_second():
    quotes = make_quotes([100.0, 102.0, 200.0], seconds=[0.1, 0.9, 1.5])
    assert feature_matrix(quotes, np.array([2]), FeatureRecipe(lags=(Lags(1),)))[0, -1] == -99.0


def test_the_as_of_second_itself_is_no_lag():
    quotes = make_quotes([100.0, 150.0, 160.0], seconds=[0, 1.1, 1.2])
    assert feature_matrix(quotes, np.array([2]), FeatureRecipe(lags=(Lags(1),)))[0, -1] == -60.0


def test_a_silent_second_carries_the_last_one_forward():
    quotes = make_quotes([100.0, 101.0, 105.0], seconds=[0, 1, 5])
    lags = feature_matrix(quotes, np.array([2]), FeatureRecipe(lags=(Lags(5),)))[0, N_QUOTE:]
    assert lags.tolist() == [-5.0, -4.0, -4.0, -4.0, -4.0]


def test_a_longer_silence_than_allowed_drops_the_row():
    quotes = make_quotes([100.0, 101.0, 105.0], seconds=[0, 1, 5])
    recipes = [FeatureRecipe(lags=(Lags(5),), max_gap_s=gap) for gap in (2, 3)]
    assert [bool(usable_rows(quotes, np.array([2]), r)[0]) for r in recipes] == [False, True]


def test_history_is_never_filled_from_later():
    quotes = make_quotes([np.nan, 101.0, 105.0], ask=[100.0, 101.25, 105.25])
    recipe = FeatureRecipe(lags=(Lags(2),))  # the first second has no executable quote
    assert not usable_rows(quotes, np.array([2]), recipe)[0]


def test_short_history_names_the_row():
    with pytest.raises(DataError, match="row 1 lacks part of the 3 s of history"):
        feature_matrix(random_walk(50), np.array([40, 1]), FeatureRecipe(lags=(Lags(3),)))


def test_flagged_quotes_leave_no_trace_in_lags():
    clean = make_quotes([100.0, 101.0, 102.0], seconds=[0.1, 1.1, 2.1])
    dirty = make_quotes(
        [100.0, 999.0, 101.0, 102.0],
        ask=[100.25, 9.0, 101.25, 102.25],
        seconds=[0.1, 1.0, 1.1, 2.1],
    )
    recipe = FeatureRecipe(lags=(Lags(2),))
    np.testing.assert_array_equal(
        feature_matrix(dirty, np.array([3]), recipe)[0, N_QUOTE:],
        feature_matrix(clean, np.array([2]), recipe)[0, N_QUOTE:],
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_equal_to_a_plain_reference(seed):
    quotes = random_walk(300, seed=seed, per_s=2)
    recipe = FeatureRecipe(lags=(Lags(10),), max_gap_s=5)
    at = np.arange(60, 300, 20)
    kept = usable_rows(quotes, at, recipe)
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
        check_density(make_quotes([1.0] * 5, seconds=np.arange(5) * 60), FeatureRecipe())


def test_schema_names_every_column_and_its_latest_time():
    columns = FeatureRecipe().columns()
    assert len(columns) == 605
    assert columns[5]["name"] == "mid_lag_600s"
    assert columns[-1]["reads_up_to"] == "0 s before the as-of second begins, exclusive"


def test_resolutions_mix_and_a_coarse_lag_is_the_mean_of_its_window():
    quotes = make_quotes(np.arange(100.0, 112.0))
    recipe = FeatureRecipe(quote_columns=(), lags=(Lags(2, 1), Lags(3, 3)))
    row = feature_matrix(quotes, np.array([11]), recipe)[0]
    assert row.tolist() == [-2.0, -1.0, -8.0, -5.0, -2.0]
    assert [c["name"] for c in recipe.columns()] == [
        "mid_lag_2s", "mid_lag_1s", "mid_lag_9s_of_3s", "mid_lag_6s_of_3s", "mid_lag_3s_of_3s",
    ]  # fmt: skip


def test_spread_and_volatility_by_hand():
    bid = np.array([100.0, 103.0, 107.0, 107.0, 200.0])
    quotes = make_quotes(bid, spread=0.5)
    recipe = FeatureRecipe(quote_columns=(), lags=(), spread=True, volatility_s=(3, 4))
    row = feature_matrix(quotes, np.array([4]), recipe)[0]
    assert row.tolist() == pytest.approx([0.5, np.sqrt(16 / 2), np.sqrt(25 / 3)])


def test_scaling_changes_the_unit_of_prices_and_of_nothing_else():
    quotes = random_walk(300, seed=4, per_s=2)
    at = np.array([200, 250])
    indicator = Indicator("RSI", 2, {"timeperiod": 3})
    plain, returns, volatility = (
        feature_matrix(
            quotes,
            at,
            FeatureRecipe(
                lags=(Lags(5),), indicators=(indicator,), scaling=scaling, scaling_window_s=30
            ),
        )
        for scaling in ("none", "returns", "volatility")
    )
    mid = quotes.mid[at][:, None]
    np.testing.assert_allclose(returns[:, :-1], plain[:, :-1] / mid, rtol=1e-6)
    moved = plain[0, :-1] != 0
    ratio = volatility[0, :-1][moved] / plain[0, :-1][moved]
    assert ratio == pytest.approx(np.full(len(ratio), ratio[0]))
    np.testing.assert_array_equal(returns[:, -1], plain[:, -1])
    np.testing.assert_array_equal(volatility[:, -1], plain[:, -1])


def test_a_still_market_cannot_be_scaled_by_volatility():
    quotes = make_quotes([100.0] * 50)
    recipe = FeatureRecipe(lags=(Lags(5),), scaling="volatility", scaling_window_s=10)
    assert not usable_rows(quotes, np.array([40]), recipe)[0]


def test_an_indicator_reads_whole_bars_before_the_as_of_second():
    start = -START_S % 3 + 3  # bars of 3 s begin on the clock's multiples
    quotes = make_quotes(np.arange(100.0, 112.0), spread=0.0, seconds=np.arange(12) + start)
    recipe = FeatureRecipe(
        quote_columns=(), lags=(), indicators=(Indicator("SMA", 3, {"timeperiod": 2}),)
    )
    at = np.array([9, 10, 11])
    values = feature_matrix(quotes, at, recipe)[:, 0]
    closes = [105.0, 108.0]  # of the second and third bar: the fourth is not over
    assert (values + quotes.mid[at]).tolist() == [np.mean(closes)] * 3


def test_features_do_not_depend_on_where_the_recording_begins():
    recipe = FeatureRecipe(lags=(Lags(6), Lags(3, 4)), max_gap_s=20, **EVERYTHING)
    quotes = random_walk(900, seed=8, per_s=2)
    first_ns = quotes.ts_event[600] // NS_PER_S * NS_PER_S - recipe.lookback_ns
    cut = int(np.searchsorted(quotes.ts_event, first_ns))
    assert cut > 0
    np.testing.assert_array_equal(
        feature_matrix(quotes.slice(cut, 900), np.array([600 - cut, 700 - cut]), recipe),
        feature_matrix(quotes, np.array([600, 700]), recipe),
    )


@pytest.mark.parametrize(
    ("indicator", "message"),
    [
        (Indicator("RSIX"), "TA-Lib has no function RSIX: RSI"),
        (Indicator("RSI", parameters={"period": 3}), "has no parameter period; it has timeperiod"),
        (Indicator("OBV"), "OBV needs volume"),
        (Indicator("SMA", bars=3), "is given 3 bars, it needs at least 30"),
    ],
)
def test_an_indicator_that_cannot_be_made_is_named(indicator, message):
    with pytest.raises(ConfigError, match=message):
        feature_matrix(
            random_walk(300),
            np.array([200]),
            FeatureRecipe(lags=(Lags(1),), indicators=(indicator,)),
        )


def test_rows_that_lie_apart_are_filled_like_rows_that_do_not():
    quotes = random_walk(400, seed=2)
    recipe = FeatureRecipe(lags=(Lags(8), Lags(3, 4)), max_gap_s=30, spread=True)
    at = np.arange(100, 300, 7)
    source = prepare(quotes, at[usable_rows(quotes, at, recipe)], recipe)
    wide_ND = np.full((len(source), source.feature_dim + 9), -1.0, np.float32)
    inner_ND = wide_ND[:, 4:-5]
    source.fill(inner_ND)
    np.testing.assert_array_equal(inner_ND, feature_matrix(quotes, at, recipe))
    assert (wide_ND[:, :4] == -1).all()
    assert (wide_ND[:, -5:] == -1).all()


def test_cells_that_lie_apart_are_refused():
    quotes = random_walk(400, seed=2)
    source = prepare(quotes, np.arange(100, 103), FeatureRecipe(lags=(Lags(8),), max_gap_s=30))
    with pytest.raises(ValueError, match="cells of a row lie 12 bytes apart, expected 4"):
        source.fill(np.empty((source.feature_dim, 3), np.float32).T)
