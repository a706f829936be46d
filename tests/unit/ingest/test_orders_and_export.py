"""The order bot, and batches without censoring at the edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_cases import make_quotes, random_walk
from trademl.errors import DataError
from trademl.ingest.export import cut_batches
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.quotes import NS_PER_S

PRICE = {"barrier_unit": "price"}


def test_one_order_on_the_first_tick_of_each_interval():
    quotes = make_quotes([10.0] * 6, seconds=[0, 3, 9.9, 10, 25, 26])
    orders = place_orders(quotes, OrderBotConfig(interval_s=10, **PRICE))
    assert orders.quote_index.tolist() == [0, 3, 4]


def test_no_order_on_a_flagged_tick():
    quotes = make_quotes([11.0, 10.0, 10.0], ask=[10.0, 10.25, 10.25], seconds=[0, 1, 10])
    orders = place_orders(quotes, OrderBotConfig(interval_s=10, **PRICE))
    assert orders.quote_index.tolist() == [1, 2]


def test_spread_as_wide_as_a_barrier_is_told_at_once():
    quotes = make_quotes([10.0] * 20, spread=1.0)
    with pytest.raises(DataError, match="stop_loss is 0.5 and the median spread is 1"):
        place_orders(quotes, OrderBotConfig(take_profit=5, stop_loss=0.5, **PRICE))


def test_volatility_barriers_follow_the_market_and_never_fall_below_two_spreads():
    config = OrderBotConfig(interval_s=1, volatility_window_s=60, time_limit_s=100)
    still, lively = (
        place_orders(make_quotes(1000 + step * (np.arange(300) % 2)), config) for step in (0.0, 1.0)
    )
    assert still.take_profit.tolist() == [0.5] * len(still)
    assert lively.stop_loss == pytest.approx(10.0)  # moves of 1 every second, times sqrt(100 s)


def test_volatility_reads_nothing_after_the_order():
    config = OrderBotConfig(interval_s=1, volatility_window_s=30)
    quotes, changed = random_walk(200, per_s=2), random_walk(200, per_s=2)
    orders = place_orders(quotes, config)
    changed.bid[150:] += 99
    changed.ask[150:] += 99
    after = place_orders(changed, config)
    early = orders.quote_index < 150
    np.testing.assert_array_equal(after.take_profit[: early.sum()], orders.take_profit[early])


def test_nothing_to_trade_is_an_error():
    with pytest.raises(DataError, match="placed no order"):
        place_orders(make_quotes([10.0] * 5), OrderBotConfig())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    export_after=st.integers(5, 60),
    limit_s=st.integers(2, 60),
    late_s=st.sampled_from([0, 0.5, 20]),
)
def test_a_batch_holds_every_order_up_to_its_cut_and_all_are_resolved(
    seed, export_after, limit_s, late_s
):
    quotes = random_walk(600, seed=seed)
    config = OrderBotConfig(interval_s=2, time_limit_s=limit_s, export_after=export_after, **PRICE)
    costs = Costs(latency_ms=1000 * late_s)
    done = settle(quotes, place_orders(quotes, config), costs)
    batches = cut_batches(quotes, done, config, costs, is_finished=False)
    entry_ns = quotes.ts_event[done.entry_index[done.entry_index >= 0]]
    for start, stop in batches:
        rows = slice(start, stop)
        assert stop > start
        assert (done.exit_index[rows] >= 0).all()
        completed = np.sort(quotes.ts_event[done.exit_index[start:][done.exit_index[start:] >= 0]])
        cut_ns = completed[export_after - 1] - int((limit_s + late_s) * NS_PER_S)
        waits_for_first = cut_ns < entry_ns[start]
        if not waits_for_first:
            assert (entry_ns[rows] <= cut_ns).all()
            assert stop == len(entry_ns) or entry_ns[stop] > cut_ns
    starts = [s for s, _ in batches]
    assert starts == [0, *(stop for _, stop in batches[:-1])][: len(starts)]


def test_a_short_recording_gives_one_batch_of_what_is_resolved():
    quotes = make_quotes([10.0] * 100)
    config = OrderBotConfig(interval_s=1, time_limit_s=30, export_after=1000, **PRICE)
    done = settle(quotes, place_orders(quotes, config), Costs())
    assert cut_batches(quotes, done, config, Costs(), is_finished=True) == [(0, 70)]
    assert cut_batches(quotes, done, config, Costs(), is_finished=False) == []


def test_latency_shortens_what_the_end_of_a_recording_resolves():
    quotes = make_quotes([10.0] * 100)
    config = OrderBotConfig(interval_s=1, time_limit_s=30, export_after=1000, **PRICE)
    costs = Costs(latency_ms=5_000)
    done = settle(quotes, place_orders(quotes, config), costs)
    # decided at 59, entered at 64, out of time at 94, left at 99
    assert cut_batches(quotes, done, config, costs, is_finished=True) == [(0, 60)]
    assert (done.exit_index[:60] >= 0).all()
    assert done.exit_index[60] == -1


def test_a_recording_shorter_than_the_time_limit_is_refused():
    quotes = make_quotes([10.0] * 20)
    config = OrderBotConfig(interval_s=1, time_limit_s=30, **PRICE)
    done = settle(quotes, place_orders(quotes, config), Costs())
    with pytest.raises(DataError, match="shorter than the time limit of 30 s"):
        cut_batches(quotes, done, config, Costs(), is_finished=True)
