"""Windows of a walk-forward: what is learned ends before what is traded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.backtest.walk_settings import WalkForwardConfig, parse_length
from trademl.backtest.walk_windows import LearnSettings, known_before, plan_windows
from trademl.errors import ConfigError, DataError
from trademl.etl.folds import walk_forward_by_time
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.etl.splits import SplitConfig
from trademl.ingest.batch import Batch
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.health import HealthConfig
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S, Quotes, flag_quotes
from trademl.train.selection import SelectionFloors

RECIPE = FeatureRecipe(lags=(Lags(5),), quote_columns=())


def settings_of(**walk) -> LearnSettings:
    return LearnSettings(
        RECIPE, SplitConfig(), HealthConfig(), Costs(), SelectionFloors(), {},
        WalkForwardConfig(**walk), 7,
    )  # fmt: skip


def batch_of(seed: int, n_orders: int = 80, n_quotes: int = 900) -> Batch:
    rng = np.random.default_rng(seed)
    gaps = np.where(rng.random(n_quotes) < 0.01, 600, 1)
    mid = 100 + np.cumsum(rng.choice([-0.25, 0.25], n_quotes))
    ts_event = np.cumsum(gaps) * NS_PER_S
    bid, ask = mid - 0.125, mid + 0.125
    quotes = Quotes(ts_event, bid, ask, mid, mid, mid, flag_quotes(bid, ask))
    at = np.sort(rng.choice(n_quotes, n_orders, replace=False))
    orders = Orders(
        at,
        rng.choice(np.array([-1, 1], np.int8), n_orders),
        rng.choice([0.5, 2.0], n_orders),
        rng.choice([0.5, 2.0], n_orders),
        rng.choice([5, 300], n_orders) * NS_PER_S,
    )
    return Batch(quotes, orders, settle(quotes, orders, Costs()), np.arange(n_orders))


WALKS = st.one_of(
    st.builds(
        lambda learn, trade, anchored: {"learn": learn, "trade": trade, "anchored": anchored},
        st.integers(5, 40), st.integers(1, 30), st.booleans(),
    ),
    st.builds(
        lambda learn, trade, anchored: {
            "learn": f"{learn}s", "trade": f"{trade}s", "anchored": anchored
        },
        st.integers(100, 800), st.integers(20, 700), st.booleans(),
    ),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), WALKS)
def test_no_order_that_is_learned_from_overlaps_what_is_traded(seed, walk):
    batch = batch_of(seed)
    try:
        windows = plan_windows(batch, settings_of(**walk))
    except DataError:
        return
    as_of = batch.quotes.ts_event[batch.orders.quote_index]
    left = batch.transactions.exit_index
    for window in windows:
        first_read = RECIPE.start_ns(as_of[window.traded_N]).min()
        learned = left[window.learned_N]
        assert (learned >= 0).all()
        assert (batch.quotes.ts_event[learned] < first_read).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_a_planted_leak_cannot_reach_what_is_learned(seed, tampering):
    batch = batch_of(seed)
    rng = np.random.default_rng(tampering)
    for window in plan_windows(batch, settings_of(learn=40, trade=10)):
        known = known_before(batch, window)
        quotes, done = batch.quotes, batch.transactions
        is_later = quotes.ts_event >= window.traded_from_ns
        noise = np.where(is_later, rng.normal(size=len(quotes)), 0.0)
        later_exit = quotes.ts_event[done.exit_index] >= window.traded_from_ns
        changed = replace(
            batch,
            quotes=replace(quotes, bid=quotes.bid + noise, ask=quotes.ask + noise),
            transactions=replace(done, pnl=np.where(later_exit, 99.0, done.pnl)),
        )
        again = known_before(changed, window)
        np.testing.assert_array_equal(known.quotes.bid, again.quotes.bid)
        np.testing.assert_array_equal(known.transactions.pnl, again.transactions.pnl)
        assert known.quotes.ts_event[-1] < window.traded_from_ns
        assert (known.transactions.exit_index < len(known.quotes)).all()


def test_every_order_after_the_first_window_is_traded_once():
    batch = batch_of(3)
    windows = plan_windows(batch, settings_of(learn=50, trade=7))
    traded = np.concatenate([window.traded_N for window in windows])
    np.testing.assert_array_equal(traded, np.arange(50, 80))


def test_an_anchored_window_learns_from_everything_before():
    rolling = plan_windows(batch_of(3), settings_of(learn=30, trade=10))
    anchored = plan_windows(batch_of(3), settings_of(learn=30, trade=10, anchored=True))
    assert [int(w.learned_N[0]) for w in anchored] == [0] * 5
    assert int(rolling[-1].learned_N[0]) >= 40


def test_without_lengths_there_are_as_many_windows_as_asked_for():
    assert len(plan_windows(batch_of(3), settings_of(windows=4))) == 4


def test_a_calendar_window_after_a_closed_market_has_nothing_to_learn_from():
    at = np.array([0, 10, 20, 30, 500])
    folds = list(walk_forward_by_time(at, at, at + 1, train_ns=20, test_ns=20, embargo=0))
    assert [fold.train_rows.tolist() for fold in folds] == [[0, 1], []]
    assert [fold.test_rows.tolist() for fold in folds] == [[2, 3], [4]]


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [("2000", 2000, "orders"), (7, 7, "orders"), ("90 min", 5400 * NS_PER_S, "ns")],
)
def test_a_length_is_orders_or_a_duration(text, value, unit):
    found = parse_length(text)
    assert (found.value, found.unit) == (value, unit)


@pytest.mark.parametrize("text", ["30 fortnights", "-3", "", "1.5d"])
def test_other_lengths_are_refused(text):
    with pytest.raises(ConfigError, match="expected orders such as 2000"):
        parse_length(text)


def test_lengths_of_two_kinds_are_refused():
    with pytest.raises(ConfigError, match="give both as orders, both as durations, or neither"):
        WalkForwardConfig(learn="3d", trade=100)


def test_a_batch_that_is_too_short_says_what_is_missing():
    with pytest.raises(DataError, match="80 orders are too few for one window"):
        plan_windows(batch_of(3), settings_of(learn=500, trade=100))
