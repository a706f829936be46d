"""Nights, splits, dividends and rolls, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from market_cases import make_quotes
from trademl.errors import ConfigError, DataError
from trademl.market.adjustments import adjust, payments
from trademl.market.carry import carried_each, financing
from trademl.market.costs import Costs
from trademl.market.events import Event
from trademl.market.fills import settle
from trademl.market.friction import tape_of, volatility
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S, QuoteFlag
from trademl.market.sessions import close_outside

DAY = 86_400
FREE = Costs()


def one_order(n_seconds=10 * DAY, side=1):
    far = np.array([1e6])
    limit = np.array([n_seconds * NS_PER_S])
    return Orders(np.array([0]), np.array([side], np.int8), far, far, limit)


def held(carry, quotes, first, last, side=1):
    ts = quotes.ts_event
    return float(carried_each(carry, np.array([side]), ts[[first]], ts[[last]])[0])


def test_each_night_costs_a_365th_of_the_years_rate_on_the_last_mid():
    quotes = make_quotes([99.875, 199.875, 199.875], seconds=[0, DAY, 2 * DAY])
    costs = Costs(financing_long_pct=36.5, financing_short_pct=-18.25, multiplier=2)
    carry = financing(quotes, costs)

    # nights at mids of 100 and of 200, a tenth of a per cent of twice the mid each
    assert held(carry, quotes, 0, 2) == pytest.approx(-0.2 - 0.4)
    assert held(carry, quotes, 0, 1, side=-1) == pytest.approx(0.1)


def test_label_and_recording_pay_the_same_nights():
    quotes = make_quotes([100.0, 101.0, 102.0], seconds=[0, DAY, 2 * DAY])
    costs = Costs(financing_long_pct=10)

    free, charged = (settle(quotes, one_order(DAY), c) for c in (FREE, costs))

    assert charged.pnl[0] - free.pnl[0] == pytest.approx(-100.125 * 0.1 / 365)


def test_rollover_that_is_no_time_is_refused():
    costs = Costs(financing_long_pct=1, rollover="five")

    with pytest.raises(ConfigError, match="rollover is 'five'"):
        financing(make_quotes([1.0, 1.0]), costs)


def test_split_leaves_no_jump_and_changes_no_profit():
    quotes = make_quotes([100.0, 25.0, 26.0], spread=0.0, seconds=[0, 10, 20])
    split = Event(int(quotes.ts_event[1]), split=4)

    adjusted = adjust(quotes, [split])

    assert adjusted.bid.tolist() == [100.0, 100.0, 104.0]


def test_dividend_is_paid_for_each_old_share():
    quotes = make_quotes([100.0, 49.0, 49.0], spread=0.0, seconds=[0, 10, 20])
    ts = quotes.ts_event
    events = [Event(int(ts[1]), split=2), Event(int(ts[2]), dividend=0.5)]

    carry = payments(adjust(quotes, events), FREE)

    assert held(carry, quotes, 0, 2) == 1.0
    assert held(carry, quotes, 0, 2, side=-1) == -1.0
    assert held(carry, quotes, 0, 1) == 0.0


def test_roll_takes_the_gap_off_and_costs_two_fills():
    quotes = make_quotes([100.0, 103.0, 104.0], spread=0.25, seconds=[0, 10, 20])
    roll = Event(int(quotes.ts_event[1]), roll_gap=3.0, is_roll=True)

    adjusted = adjust(quotes, [roll])
    carry = payments(adjusted, Costs(slippage=0.5, fee_per_unit=2, multiplier=10))

    assert adjusted.bid.tolist() == [100.0, 100.0, 101.0]
    assert held(carry, quotes, 0, 2) == -(10 * (0.25 + 1.0) + 4)


def test_adjusting_reads_nothing_of_the_future():
    quotes = make_quotes([100.0, 50.0, 25.0], spread=0.0, seconds=[0, 10, 20])
    events = [Event(int(quotes.ts_event[k]), split=2) for k in (1, 2)]

    assert adjust(quotes, events).bid[1] == adjust(quotes, events[:1]).bid[1]


def test_label_is_paid_the_dividend_that_it_was_held_over():
    quotes = make_quotes([100.0, 99.0, 99.0], spread=0.0, seconds=[0, 10, 20])
    adjusted = adjust(quotes, [Event(int(quotes.ts_event[1]), dividend=1.0)])

    bought = settle(adjusted, one_order(15), FREE)
    sold = settle(adjusted, one_order(15, side=-1), FREE)

    assert (bought.pnl[0], sold.pnl[0]) == (0.0, 0.0)


def test_a_slice_pays_by_the_splits_before_it():
    quotes = make_quotes([100.0, 50.0, 49.0, 49.0], spread=0.0, seconds=[0, 10, 20, 30])
    ts = quotes.ts_event
    events = [Event(int(ts[1]), split=2), Event(int(ts[2]), dividend=0.5)]
    later = adjust(quotes, events).slice(1, 4)

    assert held(payments(later, FREE), later, 0, 2) == 1.0


def test_events_given_twice_are_refused():
    quotes = make_quotes([100.0, 50.0])
    split = [Event(int(quotes.ts_event[1]), split=2)]

    with pytest.raises(DataError, match="adjusted already"):
        adjust(adjust(quotes, split), split)


def test_a_roll_that_takes_prices_below_zero_is_refused():
    quotes = make_quotes([100.0, 103.0])
    roll = Event(int(quotes.ts_event[1]), roll_gap=300.0, is_roll=True)

    with pytest.raises(DataError, match="rolls take the price"):
        adjust(quotes, [roll])


def test_quotes_outside_of_sessions_fill_nothing():
    quotes = make_quotes([1.0, 2.0, 3.0, 4.0])
    ts = quotes.ts_event

    marked = close_outside(quotes, ts[[1]], ts[[3]])

    assert marked.flags.tolist() == [QuoteFlag.CLOSED, 0, 0, QuoteFlag.CLOSED]
    assert marked.market_state.tolist() == ["CLOSED", None, None, "CLOSED"]


def test_recording_outside_of_every_session_is_refused():
    quotes = make_quotes([1.0])

    with pytest.raises(DataError, match="no quote lies within a session"):
        close_outside(quotes, quotes.ts_event + 1, quotes.ts_event + 2)


def test_volatility_is_that_of_the_five_minutes_before():
    bid = 100 + np.arange(1_000) % 2  # one up, one down, each second
    sigma = volatility(make_quotes(bid, seconds=20 + np.arange(1_000)))

    assert sigma[:20].max() == 0.0  # the first minute is not over
    assert sigma[-1] == pytest.approx(1.0)


def test_volatility_does_not_depend_on_where_a_recording_begins():
    rng = np.random.default_rng(0)
    quotes = make_quotes(100 + np.cumsum(rng.normal(0, 1, 2_000)))

    np.testing.assert_array_equal(
        volatility(quotes)[1_500:], volatility(quotes.slice(1_000, 2_000))[500:]
    )


def test_volatility_reads_nothing_of_its_own_minute():
    quotes = make_quotes(100 + np.arange(1_000) % 3)
    later = quotes.ts_event >= quotes.ts_event[900] // (60 * NS_PER_S) * 60 * NS_PER_S
    tampered = replace(quotes, bid=np.where(later, 1.0, quotes.bid))

    np.testing.assert_array_equal(volatility(quotes)[:901], volatility(tampered)[:901])


@pytest.mark.parametrize(
    ("scale", "bid", "ask"), [(0, 100.5, 100.5), (1, 100, 101), (2, 99.5, 101.5)]
)
def test_spread_scale_moves_both_sides_from_the_mid(scale, bid, ask):
    tape = tape_of(make_quotes([100.0], spread=1.0), Costs(spread_scale=scale))

    assert (tape.bid[0], tape.ask[0]) == (bid, ask)


def test_impact_follows_the_square_root_of_size():
    # Y sigma_day sqrt(Q / V) with V of 86,400 a day is Y sigma_second sqrt(Q)
    costs = Costs(impact=0.5, daily_volume_units=86_400)
    quotes = replace(
        make_quotes([100.0, 100.0], spread=0.0),
        volatility=np.full(2, 2.0),
        bid_size=np.full(2, 1.0),
        ask_size=np.full(2, 1.0),
    )

    assert settle(quotes, one_order(), costs).entry_price[0] == pytest.approx(101.0)
    assert settle(quotes, one_order(), costs.times(2)).entry_price[0] == pytest.approx(102.0)


def test_impact_without_a_volume_is_refused():
    with pytest.raises(ValueError, match="needs the volume of a day"):
        Costs(impact=1.0)
