"""One hedge for each outage, of the right size, and taken back when the region is there again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademl.errors import ConfigError, DataError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerOrder, Hedge, Lease
from trademl.live.hedge import Evidence, fire_hedge, recover, why_not
from trademl.live.hedge_size import HedgeConfig, plan_hedge
from trademl.live.lease import LeaseHolder, LeaseState, lease_state
from trademl.live.outbox import Fence, queue
from trademl.live.paper_options import PaperOptions
from trademl.live.sender import Sender
from trademl.ports import OrderTicket

NOW_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00Z
CONFIG = HedgeConfig(
    home="hk", instrument="HSI", point_value=2.0, etf="EWH", beta=0.9, implied_volatility=0.2,
    as_of="2025-12-30", expiry="2026-03-20", budget=1e6, rate=0.04,
)  # fmt: skip
EXPIRED = LeaseState("diana", "hk", "hk", 1, 1, 0)
GONE = Evidence(EXPIRED, is_server_up=False, is_market_up=False)
MARKET = {"price": 100.0, "spot": 20.0}


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    opened.record(
        Lease(
            name="diana",
            home="hk",
            region="hk",
            holder="hk-1",
            token=1,
            home_token=1,
            expires_at_ms=1,
        )
    )
    yield opened
    opened.close()


@pytest.fixture
def broker(tmp_path):
    return PaperOptions(tmp_path / "broker.jsonl")


def hold(ledger, broker, quantity, key="p1"):
    side = "buy" if quantity > 0 else "sell"
    ticket = OrderTicket(key, "diana", "HSI", side, "entry", abs(quantity), 100.0, 1)
    with ledger.session() as session:
        queue(session, ticket)
    Sender(ledger, broker, "diana").work()


def survivor(ledger, region="us", ttl_ms=60_000):
    return LeaseHolder(
        ledger, "diana", home="hk", region=region, holder=f"{region}-1", ttl_ms=ttl_ms
    )


def fire(ledger, holder, config=CONFIG, evidence=GONE, **market):
    return fire_hedge(
        ledger, holder, "diana", config, evidence, **{**MARKET, **market}, now_ns=lambda: NOW_NS
    )


def plan(quantity, config=CONFIG, **changes):
    return plan_hedge(config, quantity, **{**MARKET, "now_ns": NOW_NS, **changes})


def test_contracts_are_exposure_over_what_one_contract_protects():
    found = plan(500.0)
    # by hand: 500 x 100 x 2 = 100,000; x 0.9 beta; one put protects |delta| x 20 x 100
    expected = 100_000 * 0.9 / (abs(found.option.delta) * 2000)
    assert (found.exposure, found.bound) == (100_000.0, "exposure")
    assert found.contracts == int(expected)
    assert expected - found.contracts < 1


def test_a_budget_bounds_what_is_bought():
    found = plan(500.0, replace(CONFIG, budget=1000.0))
    assert found.bound == "budget"
    assert found.contracts * found.premium <= 1000 < (found.contracts + 1) * found.premium


@given(quantity=st.floats(-1e4, 1e4).filter(lambda q: abs(q) > 1e-3), budget=st.floats(1, 1e7))
def test_no_hedge_costs_more_than_the_budget_or_protects_more_than_there_is(quantity, budget):
    found = plan(quantity, replace(CONFIG, budget=budget))
    assert found.option.right == ("put" if quantity > 0 else "call")
    assert found.contracts * found.premium <= budget * (1 + 1e-12)
    protected = found.contracts * abs(found.option.delta) * 20 * 100
    assert protected <= abs(found.exposure) * 0.9 * (1 + 1e-12)


def test_no_position_needs_no_hedge():
    assert plan(0.0) is None


def test_a_stale_volatility_is_refused():
    with pytest.raises(ConfigError, match="2025-12-20, 12 days old: the most is 7"):
        plan(1.0, replace(CONFIG, as_of="2025-12-20"))


def test_an_estimate_of_a_day_to_come_is_refused():
    with pytest.raises(ConfigError, match="a day to come"):
        plan(1.0, replace(CONFIG, as_of="2026-01-02"))


def test_expired_options_are_refused():
    with pytest.raises(ConfigError, match="has passed"):
        plan(1.0, replace(CONFIG, expiry="2025-12-31"))


@pytest.mark.parametrize(
    "change", [{"beta": 0.0}, {"budget": -1.0}, {"etf": ""}, {"as_of": "soon"}]
)
def test_a_section_that_cannot_be_used_is_refused(change):
    with pytest.raises(ConfigError):
        replace(CONFIG, **change)


@pytest.mark.parametrize("change", [{"price": 0.0}, {"spot": float("nan")}])
def test_prices_that_are_none_are_refused(change):
    with pytest.raises(DataError):
        plan(1.0, **change)


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (GONE, ""),
        (replace(GONE, lease=None), "never held"),
        (replace(GONE, lease=replace(EXPIRED, left_ms=1)), "1 ms more"),
        (replace(GONE, is_server_up=True), "servers of region hk answer"),
        (replace(GONE, is_market_up=True), "trade there instead"),
        (replace(GONE, lease=replace(EXPIRED, home="uk")), "belongs to region uk"),
    ],
)
def test_a_region_is_hedged_only_when_all_of_it_is_gone(evidence, why):
    found = why_not(evidence, "hk")
    assert (found == "") == (why == "")
    assert why in found


def test_an_outage_buys_puts_for_a_long_position_and_the_broker_fills_them(ledger, broker):
    hold(ledger, broker, 500.0)

    fired = fire(ledger, survivor(ledger))
    Sender(ledger, broker, "diana").work()

    order = ledger.get(BrokerOrder, fired.key)
    assert (order.instrument, order.side, order.kind) == ("EWH 2026-03-20 P 20", "buy", "hedge")
    assert (order.status, order.quantity) == ("filled", fired.plan.contracts)


def test_a_short_position_is_hedged_with_calls(ledger, broker):
    hold(ledger, broker, -500.0)
    assert fire(ledger, survivor(ledger)).plan.instrument == "EWH 2026-03-20 C 20"


def test_two_survivors_one_after_the_other_fire_once(ledger, broker):
    hold(ledger, broker, 500.0)
    first = survivor(ledger, "us")
    assert fire(ledger, first).is_fired
    first.release()  # as when it dies, and its lease ends

    again = fire(ledger, survivor(ledger, "eu"))

    assert (again.is_fired, again.why) == (False, "this outage is hedged already")
    assert len(ledger.rows(BrokerOrder, kind="hedge")) == 1


def test_survivors_that_race_fire_once(ledger, broker):
    hold(ledger, broker, 500.0)
    holders = [survivor(ledger, region) for region in ("us", "eu", "sg", "jp")]

    with ThreadPoolExecutor(4) as pool:
        fired = list(pool.map(lambda holder: fire(ledger, holder), holders))

    assert sum(f.is_fired for f in fired) == 1
    assert len(ledger.rows(Hedge)) == len(ledger.rows(BrokerOrder, kind="hedge")) == 1


def test_the_lost_regions_queued_orders_never_go_out_after_the_hedge(ledger, broker):
    hold(ledger, broker, 500.0)
    late = OrderTicket("late", "diana", "HSI", "buy", "entry", 1.0, 100.0, 1)
    with ledger.session() as session:
        queue(session, late, fence=Fence("diana", 1))
    fire(ledger, survivor(ledger))

    assert "late" in Sender(ledger, broker, "diana").work().cancelled


def test_stale_figures_are_refused_before_the_lease_is_taken(ledger, broker):
    hold(ledger, broker, 500.0)
    with pytest.raises(ConfigError):
        fire(ledger, survivor(ledger), replace(CONFIG, as_of="2025-01-01"))
    assert lease_state(ledger, "diana").token == 1


def test_on_recovery_what_did_not_fill_is_cancelled(ledger, broker, tmp_path):
    hold(ledger, broker, 500.0)
    resting = PaperOptions(tmp_path / "resting", fills_at_once=False)
    fired = fire(ledger, survivor(ledger))
    Sender(ledger, resting, "diana").work()

    found = recover(ledger, "diana", now_ns=lambda: NOW_NS)

    assert (found.cancelled, found.to_unwind) == ((fired.key,), {})
    assert fired.key in Sender(ledger, resting, "diana").work().cancelled
    assert recover(ledger, "diana").cancelled == ()


def test_on_recovery_what_filled_is_to_be_unwound(ledger, broker):
    hold(ledger, broker, 500.0)
    fired = fire(ledger, survivor(ledger))
    Sender(ledger, broker, "diana").work()

    found = recover(ledger, "diana")

    assert found.cancelled == ()
    assert found.to_unwind == {"EWH 2026-03-20 P 20": fired.plan.contracts}


def test_a_second_outage_buys_only_what_the_first_hedge_does_not_cover(ledger, broker):
    hold(ledger, broker, 500.0)
    us = survivor(ledger)
    first = fire(ledger, us)
    Sender(ledger, broker, "diana").work()
    us.release()
    home = LeaseHolder(ledger, "diana", home="hk", region="hk", holder="hk-2")
    home.acquire()
    hold(ledger, broker, 500.0, key="p2")
    home.release()

    second = fire(ledger, survivor(ledger))

    assert second.is_fired
    assert second.key != first.key
    assert first.plan.contracts <= second.plan.contracts <= first.plan.contracts + 1


def test_an_outage_without_a_position_is_noted_and_buys_nothing(ledger):
    fired = fire(ledger, survivor(ledger))
    assert (fired.is_fired, fired.key) == (True, "")
    assert len(ledger.rows(Hedge)) == 1
