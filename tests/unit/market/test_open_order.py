"""An order carried quote by quote fills as the same order settled in a recording."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from market_cases import make_quotes, random_walk
from trademl.market.costs import Costs
from trademl.market.fills import settle_one
from trademl.market.friction import friction_of, tape_of
from trademl.market.open_order import OpenOrder, Stage
from trademl.market.orders import ExitReason
from trademl.market.quotes import QuoteFlag

LIMIT_NS = 40_000_000_000


def carried(quotes, costs, decided, side, take_profit, stop_loss, limit_ns, size):
    order = OpenOrder(
        side, take_profit, stop_loss, limit_ns, size,
        decided_ns=int(quotes.ts_event[decided]), friction=friction_of(costs),
    )  # fmt: skip
    parts = []
    for k in range(decided, len(quotes)):
        parts += order.on_quote(tape_of(quotes.slice(k, k + 1), costs))
    return order, parts


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    side=st.sampled_from([1, -1]),
    take_profit=st.sampled_from([0.5, 1.0, 3.0]),
    stop_loss=st.sampled_from([0.5, 2.0]),
    size=st.sampled_from([1.0, 2.5, 7.0]),
    costs=st.sampled_from(
        [
            Costs(),
            Costs(latency_ms=700, quote_delay_ms=400, slippage=0.1, slippage_spreads=0.2),
            Costs(latency_ms=2500, take_profit_is_market=True, spread_scale=1.5),
            Costs(latency_ms=4000, quote_delay_ms=3000),
        ]
    ),
    limit_ns=st.sampled_from([2_000_000_000, LIMIT_NS]),
    has_sizes=st.booleans(),
)
def test_an_order_fills_live_as_it_settles_in_a_recording(
    seed, side, take_profit, stop_loss, size, costs, limit_ns, has_sizes
):
    rng = np.random.default_rng(seed)
    quotes = random_walk(150, seed=seed, per_s=1.5)
    flags = rng.choice([0, QuoteFlag.CLOSED], 150, p=[0.85, 0.15]).astype(np.uint8)
    quotes = replace(quotes, flags=flags)
    if has_sizes:
        sizes = {n: rng.integers(0, 4, 150).astype(float) for n in ("bid_size", "ask_size")}
        quotes = replace(quotes, **sizes)
    decided = int(rng.integers(0, 60))
    order, parts = carried(quotes, costs, decided, side, take_profit, stop_loss, limit_ns, size)
    entered, paid, left, got, reason, units = settle_one(
        *tape_of(quotes, costs), friction_of(costs), decided, side, take_profit, stop_loss,
        limit_ns, size,
    )  # fmt: skip
    assert order.entry_ns == (quotes.ts_event[entered] if entered >= 0 else -1)
    assert order.exit_ns == (quotes.ts_event[left] if left >= 0 else -1)
    np.testing.assert_array_equal([order.entry_price, order.exit_price], [paid, got])
    assert order.units == units
    if left >= 0:
        assert order.reason == reason
        leaving = [part for part in parts if not part.is_entry]
        assert np.isclose(sum(part.units for part in leaving), units)
        assert np.isclose(sum(p.units * p.price for p in leaving) / units, got)


def test_a_bought_unit_leaves_at_its_take_profit_by_hand():
    quotes = make_quotes([100.0, 100.5, 102.0], spread=0.5)
    order, parts = carried(quotes, Costs(), 0, 1, 1.0, 5.0, LIMIT_NS, 1.0)
    assert order.stage is Stage.DONE
    assert order.reason == ExitReason.TAKE_PROFIT
    assert [(p.is_entry, p.price) for p in parts] == [(True, 100.5), (False, 101.5)]


def test_a_quote_of_a_closed_market_neither_fills_nor_triggers():
    quotes = make_quotes([100.0, 90.0, 100.0], spread=0.5)
    quotes.flags[1] = QuoteFlag.CLOSED
    order, _ = carried(quotes, Costs(), 0, 1, 5.0, 5.0, LIMIT_NS, 1.0)
    assert order.stage is Stage.HELD
