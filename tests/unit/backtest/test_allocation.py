"""Allocation: a plain reading of its rules, and cases by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from backtest_cases import bids
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.backtest.allocation import AllocationRules, Weights, run_allocation
from trademl.backtest.limits import Limits
from trademl.backtest.panel import Panel, panel_of
from trademl.errors import DataError
from trademl.market.costs import Costs
from trademl.market.events import Event
from trademl.market.quotes import NS_PER_S

HOUR = 3600 * NS_PER_S
DAY_NS = 24 * HOUR


def panel(bid, ask=None, ts=None, paid=None) -> Panel:
    bid = np.array(bid, float)
    ask = bid if ask is None else np.array(ask, float)
    ts = np.arange(bid.shape[1]) * HOUR if ts is None else np.array(ts)
    paid = np.zeros(bid.shape) if paid is None else np.array(paid, float)
    return Panel(ts.astype(np.int64), bid, ask, paid, -paid)


def weights(*rows) -> Weights:
    """Return rebalances given as (hour, weight, weight ...)."""
    table = np.array(rows, float)
    return Weights((table[:, 0] * HOUR).astype(np.int64), table[:, 1:])


def plainly(prices, wanted, costs, rules, limits):  # noqa: C901 - read in one piece
    """Carry an allocation by dictionaries and loops: the rules of the module, read aloud."""
    n_assets, n_rows = prices.bid.shape
    scale, mult = costs.spread_scale, costs.multiplier
    delay = round((costs.latency_ms + costs.quote_delay_ms) * 1e6)
    cash, units, orders, last, fills, equity = (
        rules.capital,
        dict.fromkeys(range(n_assets), 0.0),
        {},
        {},
        [],
        [],
    )
    peak, day, day_start, dead, flat_sent, todo = (
        0.0,
        None,
        0.0,
        False,
        False,
        list(range(len(wanted))),
    )
    value_before = 0.0

    def touch(a, t):
        mid = (prices.bid[a, t] + prices.ask[a, t]) / 2
        half = scale * (prices.ask[a, t] - prices.bid[a, t]) / 2
        return mid - half, mid + half

    def account():
        worth = cash
        for a, u in units.items():
            if u:
                worth += u * last[a][0 if u > 0 else 1] * mult
        return worth

    for t in range(n_rows):
        now = int(prices.ts_event[t])
        for a, u in units.items():
            cash += abs(u) * (prices.paid_bought if u > 0 else prices.paid_sold)[a, t] if u else 0.0
        here = set()
        for a in range(n_assets):
            if not np.isnan(prices.bid[a, t]) and not np.isnan(prices.ask[a, t]):
                last[a] = touch(a, t)
                here.add(a)
        while True:
            for a in sorted(orders):
                arrives, size, share, base, source = orders[a]
                if arrives > now or a not in here:
                    continue
                bid, ask = last[a]
                if size is None:
                    size = cut(share * base / ((bid + ask) / 2 * mult), limits.max_units)
                del orders[a]
                ordered = size - units[a]
                if ordered == 0:
                    continue
                slip = costs.slippage + costs.slippage_spreads * (ask - bid)
                price = ask + slip if ordered > 0 else bid - slip
                fee = abs(ordered) * (costs.fee_bps * 1e-4 * mult * price + costs.fee_per_unit)
                cash -= ordered * price * mult + fee
                units[a] = size
                fills.append((t, a, source, ordered, price, fee))
            worth = account()
            gain = worth - rules.capital
            if day != now // DAY_NS:
                day, day_start = now // DAY_NS, value_before
            value_before = gain
            peak = max(peak, gain)
            dead = dead or peak - gain >= limits.drawdown
            may = not dead and gain - day_start > -limits.daily_loss
            if not may and not flat_sent:
                flat_sent = True
                orders = {a: (now + delay, 0.0, None, None, -1) for a, u in units.items() if u}
                continue
            if not todo or int(wanted.ts_ns[todo[0]]) >= (
                int(prices.ts_event[t + 1]) if t + 1 < n_rows else 2**63
            ):
                break
            r, flat_sent, orders = todo.pop(0), not may, {}
            target = wanted.weight[r].copy()
            gross = np.abs(target).sum()
            if gross > rules.gross_limit or (rules.normalise and gross > 0):
                target *= rules.gross_limit / gross
            if not may or worth <= 0:
                target[:] = 0
            for a in range(n_assets):
                if target[a] == 0 and units[a] == 0:
                    continue
                arrives = int(wanted.ts_ns[r]) + delay
                if a not in last:
                    orders[a] = (arrives, None, target[a], worth, r)
                    continue
                mid = sum(last[a]) / 2
                if target[a] != 0 and abs(units[a] * mid * mult / worth - target[a]) <= rules.band:
                    continue
                size = cut(target[a] * worth / (mid * mult), limits.max_units)
                orders[a] = (arrives, size, None, None, r)
        equity.append(worth)
    return np.array(equity), fills


def cut(units, most):
    return min(max(units, -most), most)


@st.composite
def markets(draw):
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    n_assets, n_rows, n_rebalances = rng.integers(1, 5), rng.integers(2, 60), rng.integers(0, 8)
    ts = np.cumsum(rng.integers(1, 30, n_rows)) * HOUR
    mid = 50 * np.exp(np.cumsum(rng.normal(0, 0.03, (n_assets, n_rows)), axis=1))
    half = rng.uniform(0, 0.2, (n_assets, n_rows))
    missing = rng.random((n_assets, n_rows)) < rng.choice([0.0, 0.4])
    bid, ask = np.where(missing, np.nan, mid - half), np.where(missing, np.nan, mid + half)
    paid = rng.normal(0, 0.05, (n_assets, n_rows)) * (rng.random((n_assets, n_rows)) < 0.1)
    at = (
        np.sort(rng.choice(np.arange(ts[0], ts[-1] + HOUR, HOUR // 2), n_rebalances, replace=False))
        if ts[-1] - ts[0] >= n_rebalances * HOUR
        else ts[:0]
    )
    weight = rng.normal(0.2, 0.5, (len(at), n_assets)) * (rng.random((len(at), n_assets)) < 0.8)
    costs = Costs(
        fee_bps=float(rng.choice([0, 5])),
        fee_per_unit=float(rng.choice([0, 0.01])),
        slippage=float(rng.choice([0, 0.02])),
        slippage_spreads=float(rng.choice([0, 0.3])),
        latency_ms=float(rng.choice([0, 100, 7.2e6])),
        quote_delay_ms=float(rng.choice([0, 50])),
        spread_scale=float(rng.choice([1, 2])),
        multiplier=float(rng.choice([1, 5])),
    )  # fmt: skip
    rules = AllocationRules(
        capital=1000.0,
        band=float(rng.choice([0, 0.05])),
        gross_limit=float(rng.choice([1, 2])),
        long_only=False,
        normalise=bool(rng.choice([False, True])),
    )
    limits = Limits(
        daily_loss=float(rng.choice([np.inf, 40])),
        drawdown=float(rng.choice([np.inf, 120])),
        max_units=float(rng.choice([np.inf, 3])),
    )
    return Panel(ts, bid, ask, paid, -paid), Weights(at, weight), costs, rules, limits


@settings(max_examples=150, deadline=None)
@given(markets())
def test_the_compiled_allocation_is_the_plain_reading_to_the_cent(market):
    prices, wanted, costs, rules, limits = market
    found = run_allocation(prices, wanted, costs, rules=rules, limits=limits)
    equity, fills = plainly(prices, wanted, costs, rules, limits)
    np.testing.assert_allclose(found.equity, equity, rtol=0, atol=1e-6)
    assert len(found) == len(fills)
    for f, (row, asset, source, units, price, fee) in enumerate(fills):
        where = (found.fill_row[f], found.fill_asset[f], found.fill_decision[f])
        assert where == (row, asset, source)
        np.testing.assert_allclose(
            (found.units[f], found.price[f], found.fee[f]), (units, price, fee), atol=1e-9
        )


@settings(max_examples=50, deadline=None)
@given(markets(), st.integers(0, 2**31))
def test_what_comes_later_changes_nothing_before(market, seed):
    prices, wanted, costs, rules, limits = market
    cut_at = len(prices.ts_event) // 2
    rng = np.random.default_rng(seed)
    factor = np.ones(prices.bid.shape)
    factor[:, cut_at:] = rng.uniform(0.5, 2.0)
    later = Panel(
        prices.ts_event, prices.bid * factor, prices.ask * factor, prices.paid_bought,
        prices.paid_sold,
    )  # fmt: skip
    before, after = (
        run_allocation(p, wanted, costs, rules=rules, limits=limits) for p in (prices, later)
    )
    np.testing.assert_array_equal(before.equity[:cut_at], after.equity[:cut_at])


def test_weights_drift_until_the_next_rebalance():
    # 500 each; the first doubles: 1000 and 500; then 750 each: sell 1.25 of 200, buy 2.5 of 100
    prices = panel([[100, 100, 200, 200], [100, 100, 100, 100]])
    found = run_allocation(
        prices, weights((0, 0.5, 0.5), (2, 0.5, 0.5)), Costs(), rules=AllocationRules(1000.0)
    )
    np.testing.assert_allclose(found.units, [5, 5, -1.25, 2.5])
    np.testing.assert_allclose(found.equity, [1000, 1000, 1500, 1500])
    np.testing.assert_allclose(found.rebalances()["turnover"], [1.0, 500 / 1500])


def test_a_weight_within_the_band_is_left_alone():
    prices = panel([[100, 110, 110], [100, 100, 100]])
    held = weights((0, 0.5, 0.5), (1, 0.5, 0.5))
    rules = AllocationRules(1000.0, band=0.03)  # weights drift to 0.524 and 0.476
    assert len(run_allocation(prices, held, Costs(), rules=rules)) == 2


def test_a_target_of_nothing_is_traded_within_the_band_too():
    prices = panel([[100, 100, 100]])
    held = weights((0, 0.02), (1, 0.0))
    rules = AllocationRules(1000.0, band=0.01)
    found = run_allocation(prices, held, Costs(), rules=rules)
    np.testing.assert_allclose(found.units, [0.2, -0.2])


def test_a_decision_fills_at_the_next_price_after_latency():
    prices = panel([[100, 101, 102]])
    found = run_allocation(prices, weights((0, 1.0)), Costs(latency_ms=3_600_001.0))
    assert found.fill_row.tolist() == [2]
    assert found.price.tolist() == [102.0]


def test_an_asset_without_a_price_waits_and_the_others_do_not():
    prices = panel([[100, np.nan, np.nan, 120], [10, 10, 10, 10]])
    found = run_allocation(prices, weights((0.5, 0.5, 0.5)), Costs(), rules=AllocationRules(1000.0))
    assert list(zip(found.fill_asset, found.fill_row, strict=True)) == [(1, 1), (0, 3)]
    np.testing.assert_allclose(found.units, [50, 5])  # sized by what was known at half past


def test_an_asset_that_never_had_a_price_is_sized_when_it_fills():
    prices = panel([[np.nan, np.nan, 50], [10, 10, 10]])
    found = run_allocation(prices, weights((0, 0.5, 0.5)), Costs(), rules=AllocationRules(1000.0))
    np.testing.assert_allclose(found.units, [50, 10])
    assert found.waiting == 0


def test_an_order_that_never_finds_a_price_is_counted_as_waiting():
    prices = panel([[np.nan, np.nan], [10, 10]])
    assert run_allocation(prices, weights((0, 0.5, 0.5)), Costs()).waiting == 1


def test_costs_of_a_rebalance_are_told_by_kind():
    # 10 units at an ask of 101 + 1 of slippage; mid 100; fee 2 a unit
    prices = panel([[99, 99]], [[101, 101]])
    costs = Costs(slippage=1.0, fee_per_unit=2.0)
    found = run_allocation(prices, weights((0, 1.0)), costs, rules=AllocationRules(1000.0))
    told = found.rebalances()
    assert (told["fees"][0], told["slippage"][0]) == (20.0, 20.0)
    assert found.equity[-1] == 1000 - 1020 - 20 + 990


def test_square_root_impact_grows_with_the_order():
    mid = 100 + np.tile([0.0, 1.0], 20)
    costs = Costs(impact=1.0, daily_volume_units=86_400.0)  # a unit a second: Y sigma sqrt(Q)
    slipped = []
    for capital in (100.0, 400.0):
        found = run_allocation(
            panel([mid]), weights((38, 1.0)), costs, rules=AllocationRules(capital)
        )
        slipped.append(float(found.price[0] - found.mid[0]))
    sigma = 1 / 60  # moves of 1 an hour: root of 1 / 3600
    np.testing.assert_allclose(slipped, sigma * np.sqrt(np.array([1.0, 4.0])), rtol=1e-12)


def test_gross_exposure_is_cut_to_the_limit():
    rules = AllocationRules(1000.0, gross_limit=1.0, long_only=False)
    found = run_allocation(
        panel([[100, 100], [50, 50]]), weights((0, 1.5, -0.5)), Costs(), rules=rules
    )
    np.testing.assert_allclose(found.units, [7.5, -5.0])


def test_a_drawdown_sells_everything_for_good():
    prices = panel([[100, 80, 80, 80]])
    found = run_allocation(
        prices, weights((0, 1.0), (2, 1.0)), Costs(), rules=AllocationRules(1000.0),
        limits=Limits(drawdown=150.0),
    )  # fmt: skip
    np.testing.assert_allclose(found.units, [10, -10])
    assert (found.halted, found.fill_decision.tolist()) == (1, [0, -1])


def test_a_split_neither_earns_nor_trades():
    # a split of 4 for 1 at second 2: the price falls to a quarter and nothing happens
    one = bids(100.0, 100.0, 25.0, 25.0, spread=0.0)
    split = Event(int(one.ts_event[2]), split=4.0)
    prices = panel_of([one], Costs(), events=[[split]])
    wanted = Weights(one.ts_event[[0, 3]], np.ones((2, 1)))
    found = run_allocation(prices, wanted, Costs(), rules=AllocationRules(1000.0))
    np.testing.assert_allclose(found.equity, 1000.0)
    np.testing.assert_allclose(found.units, [10.0])


def test_a_dividend_is_cash_for_who_held_before_it():
    one = bids(100.0, 100.0, 99.0, 99.0, spread=0.0)
    prices = panel_of([one], Costs(), events=[[Event(int(one.ts_event[2]), dividend=1.0)]])
    held = Weights(one.ts_event[:1], np.ones((1, 1)))
    found = run_allocation(prices, held, Costs(), rules=AllocationRules(1000.0))
    np.testing.assert_allclose(found.equity, 1000.0)
    np.testing.assert_allclose(found.cash, [0, 0, 10, 10])


def test_a_later_split_does_not_change_an_earlier_price():
    one = bids(100.0, 100.0, 25.0, spread=0.0)
    events = [[Event(int(one.ts_event[2]), split=4.0)]]
    np.testing.assert_array_equal(panel_of([one], Costs(), events=events).bid[0, :2], [100, 100])


def test_assets_of_different_sessions_share_one_clock():
    morning = bids(10.0, 11.0, at_s=[0, 10], spread=0.0)
    evening = bids(20.0, 21.0, at_s=[10, 20], spread=0.0)
    prices = panel_of([morning, evening], Costs())
    np.testing.assert_array_equal(prices.bid, [[10, 11, np.nan], [np.nan, 20, 21]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, 0.5), (0, 0.4)], "rebalance 1 at 0 ns is not after the one above it"),
        ([(-1, 0.5)], "before the first price"),
        ([(0, np.nan)], "of weights that are not finite"),
        ([(0, -0.5)], "set long_only to false"),
        ([(0, 0.5, 0.5)], r"weights have shape \(1, 2\), expected \(1, 1\)"),
    ],
)
def test_weights_that_cannot_be_followed_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        run_allocation(panel([[100, 100]]), weights(*rows), Costs())


def test_a_crossed_price_names_asset_and_row():
    with pytest.raises(DataError, match="asset 0 on row 1 has bid 2.0 and ask 1.0"):
        panel([[1, 2]], [[1, 1]])


def test_dates_of_rebalances_may_lie_between_rows():
    quarter = int(datetime(2024, 3, 31, tzinfo=UTC).timestamp()) * NS_PER_S
    ts = [quarter - HOUR, quarter + HOUR]
    found = run_allocation(
        panel([[100, 200]], ts=ts), Weights(np.array([quarter]), np.ones((1, 1))), Costs(),
        rules=AllocationRules(1000.0),
    )  # fmt: skip
    assert (found.fill_row.tolist(), found.units.tolist()) == ([1], [10.0])
