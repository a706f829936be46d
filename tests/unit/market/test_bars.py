"""The fill model on OHLC bars; bid bars of ten seconds, a spread of 0.25."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_cases import START_S, random_walk
from trademl.errors import DataError
from trademl.market.bars import Bars, settle_on_bars
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.orders import ExitReason, Orders
from trademl.market.quotes import NS_PER_S

FLAT = (100, 100, 100, 100)
BUY, SELL = 1, -1


def make_bars(*rows, spread=0.25, every_s=10):
    open_, high, low, close = np.array(rows, float).reshape(-1, 4).T.copy()
    ts_open = (START_S + every_s * np.arange(len(rows))) * NS_PER_S
    n = len(rows)
    return Bars(ts_open, ts_open + every_s * NS_PER_S, open_, high, low, close, np.full(n, spread))


def order(at=0, side=BUY, take_profit=1.0, stop_loss=1.0, limit_s=600.0):
    return Orders(
        np.array([at]),
        np.array([side], np.int8),
        np.array([take_profit]),
        np.array([stop_loss]),
        np.array([round(limit_s * NS_PER_S)]),
    )


def outcome(bars, one, costs=Costs()):  # noqa: B008
    result = settle_on_bars(bars, one, costs)
    done = result.transactions
    found = ExitReason(done.reason[0]), int(done.exit_index[0]), float(done.exit_price[0])
    return *found, bool(result.is_ambiguous[0])


def test_order_enters_at_the_open_after_the_close_that_decided_it():
    done = settle_on_bars(make_bars((90, 99, 80, 99), FLAT), order(), Costs()).transactions
    assert (done.entry_index[0], done.entry_price[0]) == (1, 100.25)


def test_late_entry_waits_for_an_open():
    bars = make_bars(FLAT, FLAT, (102, 102, 102, 102))
    done = settle_on_bars(bars, order(), Costs(latency_ms=1)).transactions
    assert (done.entry_index[0], done.entry_price[0]) == (2, 102.25)


def test_bar_of_the_entry_can_reach_a_barrier_after_its_open():
    bars = make_bars(FLAT, (100, 101.25, 100, 100))
    assert outcome(bars, order()) == (ExitReason.TAKE_PROFIT, 1, 101.25, False)


def test_open_beyond_the_stop_fills_there():
    bars = make_bars(FLAT, FLAT, (98, 103, 98, 99))
    assert outcome(bars, order()) == (ExitReason.STOP_LOSS, 2, 98.0, False)


def test_open_beyond_the_take_profit_fills_at_its_price():
    bars = make_bars(FLAT, FLAT, (103, 103, 90, 99))
    assert outcome(bars, order()) == (ExitReason.TAKE_PROFIT, 2, 101.25, False)


def test_stop_within_a_bar_fills_at_its_price_and_slips():
    bars = make_bars(FLAT, (100, 100, 97, 98))
    found = outcome(bars, order(), Costs(slippage=0.25))  # enters at 100.50
    assert found == (ExitReason.STOP_LOSS, 1, 99.25, False)


def test_bar_that_holds_both_barriers_counts_as_the_stop_and_is_counted():
    bars = make_bars(FLAT, (100, 102, 98, 101))
    result = settle_on_bars(bars, order(), Costs())
    assert outcome(bars, order()) == (ExitReason.STOP_LOSS, 1, 99.25, True)
    assert (result.n_ambiguous, result.ambiguous_share) == (1, 1.0)


def test_share_is_of_round_trips_that_ended():
    bars = make_bars(FLAT, (100, 102, 98, 101), FLAT, (100, 101.25, 100, 100), FLAT)
    orders = Orders(
        np.array([0, 2, 3]),
        np.ones(3, np.int8),
        np.ones(3),
        np.ones(3),
        np.full(3, 600 * NS_PER_S),
    )
    result = settle_on_bars(bars, orders, Costs())
    assert result.transactions.reason.tolist() == [2, 1, 0]
    assert result.ambiguous_share == 0.5
    assert np.isnan(settle_on_bars(bars, order(4), Costs()).ambiguous_share)


def test_sell_is_seen_at_the_ask():
    bars = make_bars(FLAT, FLAT, (100, 100.75, 100, 100))  # stop at 101, ask reaches it
    assert outcome(bars, order(side=SELL)) == (ExitReason.STOP_LOSS, 2, 101.0, False)


def test_time_exit_within_a_bar_fills_at_its_close():
    bars = make_bars(FLAT, FLAT, (100, 100.5, 99.5, 100.5))
    assert outcome(bars, order(limit_s=15)) == (ExitReason.TIME, 2, 100.5, False)


def test_time_exit_at_an_open_comes_before_what_the_bar_does_later():
    bars = make_bars(FLAT, FLAT, (100.5, 110, 90, 100))
    late = replace(bars, ts_open=bars.ts_open + np.array([0, 0, 1]))
    assert outcome(late, order(limit_s=10 + 1e-9)) == (ExitReason.TIME, 2, 100.5, False)


def test_late_stop_counts_as_sent_at_the_close_of_its_bar():
    # enters on bar 2 at 100.25, is stopped in it, and arrives after the open of bar 3
    bars = make_bars(FLAT, FLAT, (100, 100, 98, 99), (97, 97.5, 97, 97.5))
    found = outcome(bars, order(), Costs(latency_ms=1_000))
    assert found == (ExitReason.STOP_LOSS, 3, 97.5, False)


def test_late_stop_at_an_open_fills_at_the_close_if_that_is_when_it_arrives():
    bars = make_bars(FLAT, FLAT, FLAT, (98, 103, 97, 99))
    found = outcome(bars, order(), Costs(latency_ms=1_000))
    assert found == (ExitReason.STOP_LOSS, 3, 99.0, False)


def test_bar_that_contradicts_itself_is_named():
    with pytest.raises(DataError, match="bar 1 has .*expected open and close between low and high"):
        settle_on_bars(make_bars(FLAT, (100, 99, 98, 98)), order(), Costs())
    with pytest.raises(DataError, match="bar 0 .*expected a spread of 0 or more"):
        settle_on_bars(make_bars(FLAT, FLAT, spread=-1), order(), Costs())
    bars = make_bars(FLAT, FLAT)
    with pytest.raises(DataError, match="bar 1 .*no beginning before the last end"):
        settle_on_bars(replace(bars, ts_open=bars.ts_open - np.array([0, 1])), order(), Costs())


def test_order_outside_the_recording_is_named():
    with pytest.raises(DataError, match="order 0 is decided on bar 7, .* of 2 bars"):
        settle_on_bars(make_bars(FLAT, FLAT), order(7), Costs())


@st.composite
def recordings(draw):
    """Bars that jump by ticks, of one length or with gaps between them."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n = draw(st.integers(1, 40))
    open_ = 100 + 0.25 * np.cumsum(rng.integers(-4, 5, n))
    close = open_ + 0.25 * rng.integers(-3, 4, n)
    high = np.maximum(open_, close) + 0.25 * rng.integers(0, 4, n)
    low = np.minimum(open_, close) - 0.25 * rng.integers(0, 4, n)
    length, gap = 10 * NS_PER_S, rng.choice([0, 0, 1, 15], n) * NS_PER_S
    ts_close = START_S * NS_PER_S + np.cumsum(length + gap)
    return Bars(ts_close - length, ts_close, open_, high, low, close, 0.25 * rng.integers(0, 3, n))


@st.composite
def cases(draw):
    bars = draw(recordings())
    one = order(
        draw(st.integers(0, len(bars) - 1)),
        draw(st.sampled_from([BUY, SELL])),
        0.25 * draw(st.integers(1, 20)),
        0.25 * draw(st.integers(1, 20)),
        draw(st.sampled_from([0, 5, 10, 30, 1_000])),
    )
    costs = Costs(
        fee_per_unit=0.1,
        slippage=draw(st.sampled_from([0, 0.25])),
        latency_ms=draw(st.sampled_from([0, 0, 1e-6, 5_000, 25_000])),
        take_profit_is_market=draw(st.booleans()),
    )
    return bars, one, costs


def brute_force(bars, one, costs):
    """Turn the bars into moments, and read the rules moment by moment."""
    at, side, take_profit, stop_loss, limit_ns = (
        getattr(one, f.name)[0].item() for f in fields(one)
    )
    late_ns, slip = round(costs.latency_ms * 1_000_000), side * costs.slippage
    sent = int(bars.ts_close[at]) + late_ns
    entries = [k for k in range(at + 1, len(bars)) if int(bars.ts_open[k]) >= sent]
    if not entries:
        return -1, np.nan, -1, np.nan, 0, False
    first = entries[0]
    entry = bars.open[first] + (bars.spread[first] if side > 0 else 0) + slip
    moments = []
    for k in range(first, len(bars)):
        more = 0 if side > 0 else bars.spread[k]
        gains = [side * (x[k] + more - entry) for x in (bars.open, bars.high, bars.low, bars.close)]
        moments.append((k, "open", int(bars.ts_open[k]), gains[0], gains[0]))
        moments.append((k, "range", None, min(gains[1:3]), max(gains[1:3])))
        moments.append((k, "close", int(bars.ts_close[k]), gains[3], gains[3]))
    due, why, doubt = int(bars.ts_open[first]) + limit_ns + late_ns, ExitReason.TIME, False
    for place, (k, what, now, worst, best) in enumerate(moments[1:], 1):
        is_lost, is_won = worst <= -stop_loss + 1e-9, best >= take_profit - 1e-9
        if why is ExitReason.TIME and what != "close" and (is_lost or is_won):
            doubt = is_lost and is_won
            why = ExitReason.STOP_LOSS if is_lost else ExitReason.TAKE_PROFIT
            if is_won and not is_lost and not costs.take_profit_is_market:
                return first, entry, k, entry + side * take_profit, why, False
            if what == "range" and not late_ns:
                gain = -stop_loss if is_lost else take_profit
                return first, entry, k, entry + side * gain - slip, why, doubt
            seen = now if what == "open" else moments[place + 1][2]
            due = min(due, seen + late_ns)
        if what != "range" and now >= due:
            return first, entry, k, entry + side * best - slip, why, doubt
    return first, entry, -1, np.nan, 0, doubt


@settings(max_examples=400, deadline=None)
@given(case=cases())
def test_equal_to_brute_force(case):
    result = settle_on_bars(*case)
    done = result.transactions
    columns = (done.entry_index, done.entry_price, done.exit_index, done.exit_price, done.reason)
    found = (*(column[0] for column in columns), result.is_ambiguous[0])
    assert found == pytest.approx(brute_force(*case), nan_ok=True)
    assert done.pnl[0] == pytest.approx(
        case[1].side[0] * (done.exit_price[0] - done.entry_price[0]) - 0.2, nan_ok=True
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    side=st.sampled_from([BUY, SELL]),
    take_profit=st.integers(2, 12),
    stop_loss=st.integers(2, 12),
)
def test_bars_of_a_recording_tell_what_its_quotes_do_unless_they_are_ambiguous(
    seed, side, take_profit, stop_loss
):
    ticks = random_walk(400, seed=seed)
    starts = np.arange(0, 400, 10)
    cut = np.split(ticks.bid, starts[1:])
    open_, high, low, close = (
        np.array([f(x) for x in cut]) for f in (lambda x: x[0], np.max, np.min, lambda x: x[-1])
    )
    ts = ticks.ts_event
    spread = np.full(len(starts), 0.25)
    bars = Bars(ts[starts], ts[starts + 9], open_, high, low, close, spread)
    at = np.arange(len(starts) - 1)
    barriers = (np.full(len(at), 0.25 * n) for n in (take_profit, stop_loss))
    orders = Orders(at, np.full(len(at), side, np.int8), *barriers, np.full(len(at), 2**60))

    result = settle_on_bars(bars, orders, Costs())
    by_tick = settle(ticks, replace(orders, quote_index=starts[1:]), Costs())

    by_bar, sure = result.transactions, ~result.is_ambiguous
    assert sure.any()
    np.testing.assert_array_equal(by_bar.reason[sure], by_tick.reason[sure])
    np.testing.assert_array_equal(
        by_bar.exit_index[sure],
        np.where(by_tick.exit_index < 0, -1, by_tick.exit_index // 10)[sure],
    )
    np.testing.assert_array_equal(by_bar.reason[~sure], ExitReason.STOP_LOSS)
    np.testing.assert_array_equal(by_bar.pnl[sure], by_tick.pnl[sure])
