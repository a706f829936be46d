"""The one fill model, on markets worked out by hand. A tick is 0.25; buys pay the ask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_cases import START_S, make_quotes, random_walk
from trademl.errors import DataError
from trademl.market.costs import Costs
from trademl.market.fills import settle
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


def test_order_outside_the_recording_is_named():
    with pytest.raises(DataError, match="order 0 is decided on quote 7"):
        settle(make_quotes([1.0, 1.0]), order(7), Costs())


def test_barrier_that_is_not_positive_is_named():
    with pytest.raises(DataError, match="order 0 has stop_loss 0.0"):
        settle(make_quotes([1.0, 1.0]), order(stop_loss=0.0), Costs())


def brute_force(quotes, at, side, take_profit, stop_loss, limit_ns, slippage):
    """The rules of the module's docstring, one quote at a time in plain Python."""
    executable = [k for k in range(at, len(quotes)) if quotes.flags[k] == 0]
    if not executable:
        return -1, -1, ExitReason.CENSORED
    first = executable[0]
    entry = quotes.ask[first] + slippage if side > 0 else quotes.bid[first] - slippage
    for k in executable[1:]:
        touch = quotes.bid[k] if side > 0 else quotes.ask[k]
        if side * (touch - entry) >= take_profit - 1e-9:
            return first, k, ExitReason.TAKE_PROFIT
        if side * (touch - entry) <= -stop_loss + 1e-9:
            return first, k, ExitReason.STOP_LOSS
        if quotes.ts_event[k] - quotes.ts_event[first] >= limit_ns:
            return first, k, ExitReason.TIME
    return first, -1, ExitReason.CENSORED


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    side=st.sampled_from([Side.BUY, Side.SELL]),
    take_profit=st.integers(1, 12),
    stop_loss=st.integers(1, 12),
    limit_s=st.integers(1, 120),
    slippage=st.sampled_from([0.0, 0.25]),
)
def test_equal_to_brute_force(seed, side, take_profit, stop_loss, limit_s, slippage):
    quotes = random_walk(200, seed=seed, per_s=2)
    quotes.flags[np.random.default_rng(seed).random(200) < 0.1] = 1
    at = np.arange(0, 200, 7)
    n = len(at)
    orders = Orders(
        at,
        np.full(n, side, np.int8),
        np.full(n, take_profit * 0.25),
        np.full(n, stop_loss * 0.25),
        np.full(n, limit_s * NS_PER_S),
    )
    done = settle(quotes, orders, Costs(slippage=slippage))
    expected = [
        brute_force(
            quotes, a, side, take_profit * 0.25, stop_loss * 0.25, limit_s * NS_PER_S, slippage
        )
        for a in at
    ]
    found = list(zip(done.entry_index, done.exit_index, done.reason, strict=True))
    assert [tuple(map(int, f)) for f in found] == [tuple(map(int, e)) for e in expected]


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
