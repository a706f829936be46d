"""The one fill model, on markets worked out by hand. A tick is 0.25; buys pay the ask."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_cases import START_S, make_quotes, random_walk
from trademl.errors import DataError
from trademl.market.costs import Costs
from trademl.market.fills import ROWS_AT_ONCE, settle, settle_one
from trademl.market.friction import friction_of, tape_of
from trademl.market.orders import ExitReason, Orders, Side
from trademl.market.quotes import NS_PER_S


def order(at=0, *, side=Side.BUY, take_profit=1.0, stop_loss=1.0, limit_s=600.0):
    return Orders(
        np.array([at]),
        np.array([side], np.int8),
        np.array([take_profit]),
        np.array([stop_loss]),
        np.array([round(limit_s * NS_PER_S)]),
    )


def outcome(quotes, orders, costs=Costs()):  # noqa: B008
    done = settle(quotes, orders, costs)
    return (
        ExitReason(done.reason[0]),
        int(done.exit_index[0]),
        float(done.entry_price[0]),
        float(done.exit_price[0]),
        float(done.pnl[0]),
    )


def test_buy_enters_at_ask_and_take_profit_fills_at_its_price_over_a_gap():
    quotes = make_quotes([100.0, 100.5, 105.0])  # enters at 100.25, limit at 101.25
    assert outcome(quotes, order()) == (ExitReason.TAKE_PROFIT, 2, 100.25, 101.25, 1.0)


def test_take_profit_needs_the_bid_not_the_ask():
    quotes = make_quotes([100.0, 101.0, 101.25])  # ask reaches 101.25 one quote earlier
    assert outcome(quotes, order())[1] == 2


def test_stop_fills_at_first_bid_beyond_it():
    quotes = make_quotes([100.0, 99.5, 97.0, 96.0])  # stop at 99.25, gap to 97
    assert outcome(quotes, order()) == (ExitReason.STOP_LOSS, 2, 100.25, 97.0, -3.25)


def test_sell_mirrors_buy():
    quotes = make_quotes([100.0, 99.25, 98.75])  # enters at 100, buys back at ask 99.00
    assert outcome(quotes, order(side=Side.SELL)) == (ExitReason.TAKE_PROFIT, 2, 100.0, 99.0, 1.0)


def test_sell_stop_fills_at_first_ask_beyond_it():
    quotes = make_quotes([100.0, 102.0])
    assert outcome(quotes, order(side=Side.SELL)) == (ExitReason.STOP_LOSS, 1, 100.0, 102.25, -2.25)


def test_time_limit_leaves_at_the_first_quote_at_or_after_it():
    quotes = make_quotes([100.0, 100.25, 100.5, 100.5], seconds=[0, 4.9, 5.0, 6.0])
    reason, index, _, price, pnl = outcome(quotes, order(limit_s=5))
    assert (reason, index, price, pnl) == (ExitReason.TIME, 2, 100.5, 0.25)


def test_barrier_counts_when_it_ties_with_the_time_limit():
    quotes = make_quotes([100.0, 103.0], seconds=[0, 9])
    assert outcome(quotes, order(limit_s=5))[:4] == (ExitReason.TAKE_PROFIT, 1, 100.25, 101.25)


def test_flagged_quotes_neither_fill_nor_trigger():
    quotes = make_quotes(
        [100.0, 90.0, 100.0, 102.0], ask=[99.0, 99.0, 100.25, 102.25]
    )  # 0 crossed, 1 wide but legal
    crossed_stop = make_quotes([100.0, 95.0, 101.25], ask=[100.25, 94.0, 101.5])
    assert settle(quotes, order(), Costs()).entry_index[0] == 1
    assert outcome(crossed_stop, order())[:2] == (ExitReason.TAKE_PROFIT, 2)


def test_open_order_at_the_end_is_censored_and_kept():
    done = settle(make_quotes([100.0, 100.0]), order(), Costs())
    assert (done.reason[0], done.exit_index[0]) == (ExitReason.CENSORED, -1)
    assert np.isnan(done.pnl[0])
    assert np.isnan(done.label[0])


def test_costs_are_paid_on_both_sides_and_market_fills_slip():
    costs = Costs(fee_bps=10, fee_per_unit=0.05, slippage=0.25)
    quotes = make_quotes([100.0, 99.25])  # enters at 100.50, stop at 99.50: leaves at 99.00
    _, _, entry, exit_, pnl = outcome(quotes, order(), costs)
    assert (entry, exit_) == (100.5, 99.0)
    assert pnl == pytest.approx(-1.5 - 0.001 * (100.5 + 99.0) - 0.10)


def test_take_profit_does_not_slip():
    costs = Costs(slippage=0.25)
    assert outcome(make_quotes([100.0, 101.5]), order(), costs)[3] == 101.5


def test_decimal_prices_tie_as_printed():
    quotes = make_quotes([0.9, 1.3], ask=[1.0, 1.4])  # 1.0 + 0.3 > 1.3 in binary fractions
    assert 1.0 + 0.3 >= 1.3
    for entry, move in ((1.1, 2.2), (0.7, 0.1), (1.005, 0.01)):
        touched = round(entry + move, 3)
        quotes = make_quotes([entry - 0.1, touched], ask=[entry, touched + 0.1])
        assert outcome(quotes, order(take_profit=move))[0] is ExitReason.TAKE_PROFIT


def late(ms=1_000, **rest):
    return Costs(latency_ms=ms, **rest)


def test_entry_fills_on_the_first_quote_at_or_after_its_arrival():
    quotes = make_quotes([100, 101, 102, 103], seconds=[0, 0.9, 1.0, 2.0])
    assert settle(quotes, order(), late()).entry_index[0] == 2


def test_late_entry_never_fills_on_a_quote_before_its_decision():
    quotes = make_quotes([100, 101, 102, 103], seconds=[0, 0, 0, 1])
    assert settle(quotes, order(2), Costs()).entry_index[0] == 2


def test_entry_in_flight_at_the_end_is_censored():
    done = settle(make_quotes([100, 101], seconds=[0, 0.5]), order(), late())
    assert (done.entry_index[0], done.exit_index[0], done.reason[0]) == (-1, -1, 0)
    assert np.isnan(done.pnl[0])


def test_late_stop_fills_where_the_market_then_is():
    quotes = make_quotes([100, 100, 99, 98, 97.5, 96], seconds=[0, 1, 2, 2.9, 3, 4])
    # enters at 100.25 on quote 1, is stopped on quote 2, arrives on quote 4
    assert outcome(quotes, order(), late()) == (ExitReason.STOP_LOSS, 4, 100.25, 97.5, -2.75)


def test_nothing_else_happens_while_a_stop_is_in_flight():
    quotes = make_quotes([100, 100, 99, 105, 100.5], seconds=[0, 1, 2, 2.5, 3])
    assert outcome(quotes, order(), late()) == (ExitReason.STOP_LOSS, 4, 100.25, 100.5, 0.25)


def test_stop_in_flight_at_the_end_is_censored():
    quotes = make_quotes([100, 100, 99, 98], seconds=[0, 1, 2, 2.5])
    assert outcome(quotes, order(), late())[:2] == (ExitReason.CENSORED, -1)


def test_resting_take_profit_has_no_latency():
    quotes = make_quotes([100, 100, 105, 100], seconds=[0, 1, 2, 3])
    assert outcome(quotes, order(), late()) == (ExitReason.TAKE_PROFIT, 2, 100.25, 101.25, 1.0)


def test_take_profit_as_a_market_order_fills_late_at_the_touch_and_slips():
    quotes = make_quotes([100, 100, 105, 104, 103], seconds=[0, 1, 2, 2.5, 3])
    costs = late(slippage=0.25, take_profit_is_market=True)
    assert outcome(quotes, order(), costs) == (ExitReason.TAKE_PROFIT, 4, 100.5, 102.75, 2.25)


def test_take_profit_as_a_market_order_without_latency_fills_beyond_its_price():
    costs = Costs(take_profit_is_market=True)
    assert outcome(make_quotes([100, 105]), order(), costs)[3] == 105


def test_time_exit_is_sent_by_the_clock_and_fills_when_it_arrives():
    seconds = [0, 1, 5.9, 6.5, 7.0, 8]  # enters at 1, limit at 6, arrives at 7
    quotes = make_quotes([100.0] * 6, seconds=seconds)
    assert outcome(quotes, order(limit_s=5), late())[:2] == (ExitReason.TIME, 4)


def test_take_profit_still_fills_while_a_time_exit_is_in_flight():
    quotes = make_quotes([100, 100, 102, 100], seconds=[0, 1, 6.5, 7])
    found = outcome(quotes, order(limit_s=5), late())
    assert found[:4] == (ExitReason.TAKE_PROFIT, 2, 100.25, 101.25)


def test_time_exit_on_its_way_fills_before_the_stop_that_is_sent_after_it():
    quotes = make_quotes([100, 100, 99, 98, 97], seconds=[0, 1, 6.5, 7, 7.5])
    found = outcome(quotes, order(limit_s=5), late())
    assert found[:4] == (ExitReason.STOP_LOSS, 3, 100.25, 98)


def test_negative_latency_is_named():
    with pytest.raises(ValueError, match="latency_ms is -1"):
        Costs(latency_ms=-1)


def test_order_outside_the_recording_is_named():
    with pytest.raises(DataError, match="order 0 is decided on quote 7"):
        settle(make_quotes([1.0, 1.0]), order(7), Costs())


def test_barrier_that_is_not_positive_is_named():
    with pytest.raises(DataError, match="order 0 has stop_loss 0.0"):
        settle(make_quotes([1.0, 1.0]), order(stop_loss=0.0), Costs())


def brute_force(quotes, one, costs):
    """The rules of the module's docstring as plain sentences about lists of quotes."""
    at, side, take_profit, stop_loss, limit_ns = (getattr(one, f.name)[0] for f in fields(one))
    late_ns, slip = round(costs.latency_ms * 1_000_000), side * costs.slippage
    executable = [k for k in range(at, len(quotes)) if quotes.flags[k] == 0]

    def arrivals(ks, moment):
        return [k for k in ks if int(quotes.ts_event[k]) >= moment] or [None]

    first = arrivals(executable, int(quotes.ts_event[at]) + late_ns)[0]
    if first is None:
        return -1, np.nan, -1, np.nan, ExitReason.CENSORED
    entry = (quotes.ask[first] if side > 0 else quotes.bid[first]) + slip
    gain = {
        k: side * ((quotes.bid[k] if side > 0 else quotes.ask[k]) - entry)
        for k in executable
        if k > first
    }
    time_exit = arrivals(gain, int(quotes.ts_event[first]) + int(limit_ns) + late_ns)[0]
    wins = [k for k in gain if gain[k] >= take_profit - 1e-9]
    losses = [k for k in gain if gain[k] <= -stop_loss + 1e-9]
    touched = min(wins + losses, default=len(quotes))
    if time_exit is not None and touched > time_exit:
        touched, fills, reason = None, time_exit, ExitReason.TIME
    elif touched == len(quotes):
        return first, entry, -1, np.nan, ExitReason.CENSORED
    elif touched in wins and not costs.take_profit_is_market:
        return first, entry, touched, entry + side * take_profit, ExitReason.TAKE_PROFIT
    else:
        reason = ExitReason.TAKE_PROFIT if touched in wins else ExitReason.STOP_LOSS
        fills = arrivals([k for k in gain if k >= touched], int(quotes.ts_event[touched]) + late_ns)
        fills = min((k for k in (fills[0], time_exit) if k is not None), default=None)
    if fills is None:
        return first, entry, -1, np.nan, ExitReason.CENSORED
    return first, entry, fills, entry + side * gain[fills] - slip, reason


def scan(quotes, orders, costs):
    rows = [
        settle_one(
            *tape_of(quotes, costs),
            friction_of(costs),
            *(getattr(orders, f.name)[n] for f in fields(orders)),
            1.0,
        )
        for n in range(len(orders))
    ]
    return tuple(np.array([row[k] for row in rows]) for k in range(5))


def columns(done):
    return done.entry_index, done.entry_price, done.exit_index, done.exit_price, done.reason


@st.composite
def recordings(draw, n=200):
    """Quotes that jump, repeat times and are flagged now and then."""
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    bid = 1000 + 0.25 * np.cumsum(rng.integers(-3, 4, n))
    gaps = rng.choice([0, 0, 1e-9, 0.5, 1, 20], n)
    quotes = make_quotes(bid, spread=0.25, seconds=np.cumsum(gaps))
    is_bad = rng.random(n) < draw(st.sampled_from([0, 0.1, 0.9]))
    quotes.flags[is_bad] = 1
    quotes.bid[is_bad & (rng.random(n) < 0.5)] = np.nan
    return quotes


@st.composite
def many_orders(draw, n_quotes=200):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n = draw(st.integers(0, 60))
    barrier = draw(st.sampled_from([2, 12, 60, 4000])) * 0.25
    return Orders(
        np.sort(rng.integers(0, n_quotes, n)),
        rng.choice(draw(st.sampled_from([[1], [-1], [1, -1]])), n).astype(np.int8),
        np.ceil(4 * barrier * (1 - rng.random(n))) / 4,
        np.ceil(4 * barrier * (1 - rng.random(n))) / 4,
        rng.choice([0, 1, 20, 100, 2**40], n) * NS_PER_S // draw(st.sampled_from([1, 2])),
    )


costs = st.builds(
    Costs,
    fee_bps=st.sampled_from([0, 1.5]),
    fee_per_unit=st.sampled_from([0, 0.1]),
    slippage=st.sampled_from([0, 0.1, 0.25]),
    latency_ms=st.sampled_from([0, 1e-6, 250, 1_000, 20_000]),
    take_profit_is_market=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(quotes=recordings(), orders=many_orders(), costs=costs)
def test_equal_to_brute_force(quotes, orders, costs):
    done = settle(quotes, orders, costs)
    for n in range(len(orders)):
        expected = brute_force(quotes, orders.take(slice(n, n + 1)), costs)
        found = tuple(column[n] for column in columns(done))
        assert found == pytest.approx(expected, nan_ok=True)


@settings(max_examples=150, deadline=None)
@given(quotes=recordings(), orders=many_orders(), costs=costs)
def test_equal_to_the_scan_to_the_last_bit(quotes, orders, costs):
    done = settle(quotes, orders, costs)
    scanned = scan(quotes, orders, costs)
    for one, other in zip(columns(done), scanned, strict=True):
        np.testing.assert_array_equal(one, other)


def test_more_orders_than_one_block_are_settled_alike_and_stay_in_order():
    quotes = random_walk(5_000, seed=1)
    n = 2 * ROWS_AT_ONCE + 5
    rng = np.random.default_rng(0)
    orders = Orders(
        np.sort(rng.integers(0, 5_000, n)),
        rng.choice([1, -1], n).astype(np.int8),
        rng.integers(1, 40, n) * 0.25,
        rng.integers(1, 40, n) * 0.25,
        np.full(n, 600 * NS_PER_S),
    )
    done = settle(quotes, orders, Costs())
    some = np.append(rng.integers(0, n, 500), [ROWS_AT_ONCE - 1, ROWS_AT_ONCE, n - 1])
    for one, other in zip(scan(quotes, orders.take(some), Costs()), columns(done), strict=True):
        np.testing.assert_array_equal(one, other[some])


def test_longest_possible_time_limit_is_never_over():
    quotes = make_quotes([100.0] * 9)
    forever = replace(order(), time_limit_ns=np.array([np.iinfo(np.int64).max]))
    assert settle(quotes, forever, Costs()).reason[0] == ExitReason.CENSORED
    assert scan(quotes, forever, Costs())[4][0] == ExitReason.CENSORED


@pytest.mark.parametrize("cut", [30, 60])
def test_no_round_trip_moves_when_quotes_after_its_exit_change(cut):
    quotes = random_walk(200, seed=3)
    orders = Orders(np.arange(0, 40), *(np.full(40, v) for v in (1, 0.5, 0.5, 20 * NS_PER_S)))
    before = settle(quotes, orders, Costs())
    is_over = (before.exit_index >= 0) & (before.exit_index < cut)
    quotes.bid[cut:] += 50
    quotes.ask[cut:] += 50
    after = settle(quotes, orders, Costs())
    assert is_over.any()
    np.testing.assert_array_equal(after.pnl[is_over], before.pnl[is_over])


def test_start_of_time_is_utc_nanoseconds():
    assert make_quotes([1.0]).ts_event[0] == START_S * NS_PER_S
