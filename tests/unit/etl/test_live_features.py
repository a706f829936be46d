"""Features kept up quote by quote are those of a dataset, bit for bit, and cost the same per quote."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_cases import START_S, make_quotes, random_walk
from trademl.errors import DataError
from trademl.etl.features import feature_matrix, usable_rows
from trademl.etl.live_features import LiveFeatures
from trademl.etl.recipe import FeatureRecipe, Indicator, Lags
from trademl.ingest.simulated import SimulatedMarket, simulate
from trademl.ingest.sources import FeedConfig, read_quotes
from trademl.market.quotes import NS_PER_S, QuoteFlag, Quotes, ticks_of

RICH = FeatureRecipe(
    spread=True,
    volatility_s=(5, 9),
    lags=(Lags(8), Lags(4, 5)),
    indicators=(
        Indicator("RSI", 2, {"timeperiod": 2}),
        Indicator("BBANDS", 3, {"timeperiod": 2}),
    ),
    scaling="volatility",
    scaling_window_s=7,
    max_gap_s=6,
)


def live_rows(quotes: Quotes, recipe: FeatureRecipe) -> dict[int, np.ndarray]:
    """Return the rows that there are, by the number of their quote."""
    live, rows = LiveFeatures(recipe), {}
    for index, tick in enumerate(ticks_of(quotes)):
        live.on_quote(tick)
        found = live.row()
        assert (found.features_D is None) == bool(found.reason)
        if found.features_D is not None:
            rows[index] = found.features_D
    return rows


def assert_equal_to_a_dataset(quotes: Quotes, recipe: FeatureRecipe) -> int:
    rows = live_rows(quotes, recipe)
    executable = np.flatnonzero(quotes.is_executable)
    at = executable[usable_rows(quotes, executable, recipe)]
    assert list(rows) == at.tolist()
    if len(at):
        built = feature_matrix(quotes, at, recipe)
        np.testing.assert_array_equal(
            np.array(list(rows.values())).view(np.uint32), built.view(np.uint32)
        )
    return len(at)


def troubled(seed: int, per_s: float, n: int = 300) -> Quotes:
    """Return quotes with silences, equal times, frozen and crossed prices and closed sessions."""
    rng = np.random.default_rng(seed)
    quotes = random_walk(n, seed=seed, per_s=per_s)
    wait_s = rng.choice([0.0, 0.0, 0.3, 1.0, 3.0], n) / per_s
    wait_s[rng.random(n) < 0.02] = rng.choice([7.0, 40.0])
    ts_event = START_S * NS_PER_S + np.cumsum(np.round(wait_s * NS_PER_S).astype(np.int64))
    flags = rng.choice([0, QuoteFlag.CROSSED, QuoteFlag.CLOSED], n, p=[0.9, 0.05, 0.05])
    flags[: rng.integers(0, 5)] = QuoteFlag.CLOSED
    frozen = rng.integers(0, n - 60)
    bid, ask = quotes.bid.copy(), quotes.ask.copy()
    bid[frozen : frozen + 50], ask[frozen : frozen + 50] = bid[frozen], ask[frozen]
    bid[flags == QuoteFlag.CROSSED] += 5.0
    return replace(quotes, ts_event=ts_event, bid=bid, ask=ask, flags=flags.astype(np.uint8))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    per_s=st.sampled_from([0.3, 1.0, 8.0]),
    recipe=st.sampled_from(
        [RICH, replace(RICH, scaling="returns"), FeatureRecipe(lags=(Lags(20),), max_gap_s=5)]
    ),
)
def test_rows_of_a_troubled_feed_are_those_of_a_dataset_bit_for_bit(seed, per_s, recipe):
    assert_equal_to_a_dataset(troubled(seed, per_s), recipe)


def test_rows_of_a_quiet_feed_exist_and_are_those_of_a_dataset():
    assert assert_equal_to_a_dataset(random_walk(400, seed=3, per_s=3.0), RICH) > 200


def test_rows_of_the_bundled_recording_are_those_of_a_dataset():
    quotes = read_quotes(FeedConfig(tick_size=0.25, timezone="UTC")).slice(0, 6_000)
    recipe = FeatureRecipe(lags=(Lags(600), Lags(20, 60)), volatility_s=(60,), max_gap_s=600)
    assert assert_equal_to_a_dataset(quotes, recipe) > 1_000


def test_rows_of_a_simulated_feed_are_those_of_a_dataset():
    quotes = simulate(SimulatedMarket(n_quotes=1_500, jumps_per_hour=30)).quotes
    recipe = FeatureRecipe(lags=(Lags(600),), indicators=(Indicator("SMA", 60),))
    assert assert_equal_to_a_dataset(quotes, replace(recipe, indicators=())) > 800
    assert_equal_to_a_dataset(quotes, recipe)


@pytest.mark.parametrize("n_lags", [60, 6_000])
def test_a_quote_costs_one_written_second_however_many_lags_there_are(n_lags):
    live = LiveFeatures(FeatureRecipe(lags=(Lags(n_lags),)))
    for tick in ticks_of(make_quotes(np.full(200, 100.0))):
        live.on_quote(tick)
    assert live.n_written == 199


def test_a_silence_costs_no_more_than_the_lags():
    live = LiveFeatures(FeatureRecipe(lags=(Lags(60),)))
    for tick in ticks_of(make_quotes([100.0, 101.0], seconds=[0, 1e6])):
        live.on_quote(tick)
    assert live.n_written == 61


def test_a_quote_of_an_earlier_second_is_refused():
    live = LiveFeatures(FeatureRecipe(lags=(Lags(2),)))
    late, early = ticks_of(make_quotes([100.0, 101.0], seconds=[5, 9]))
    live.on_quote(early)
    with pytest.raises(DataError, match="in order of time"):
        live.on_quote(late)
