"""A region that is gone is hedged once, whatever dies meanwhile; somebody who trades ends it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trademl.errors import BrokerError, ConfigError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerOrder, Hedge, Lease
from trademl.live.hedge import recover
from trademl.live.hedge_size import HedgeConfig
from trademl.live.lease import LeaseHolder, lease_state
from trademl.live.outbox import queue
from trademl.live.paper_options import PaperOptions
from trademl.live.sender import Sender
from trademl.live.watch import HedgeWatch, Prices
from trademl.ports import OrderTicket


def day(days):
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


CONFIG = HedgeConfig(
    home="hk", instrument="HSI", etf="EWH", beta=0.9, implied_volatility=0.2, as_of=day(-1),
    expiry=day(60), budget=1e6,
)  # fmt: skip
MISSES = 3


class Killed(BaseException):
    """Stands for kill -9."""


class World:
    """The home region as it is seen from another one."""

    def __init__(self, ledger, folder):
        self.ledger, self.folder = ledger, folder
        self.server = self.market = False
        self.broker = PaperOptions(folder / "broker.jsonl", fills_at_once=False)

    def watch(self, region="us", config=CONFIG, broker=None):
        holder = LeaseHolder(
            self.ledger, "s", home="hk", region=region, holder=f"hedge-{region}-{id(object())}"
        )
        sender = Sender(self.ledger, broker or self.broker, "s", kinds=("hedge",), region=region)
        return HedgeWatch(
            self.ledger, "s", config, holder, sender,
            is_server_up=lambda: self.server, is_market_up=lambda: self.market,
            prices=lambda: Prices(100.0, 20.0), misses=MISSES,
        )  # fmt: skip

    def expire(self):
        row = self.ledger.get(Lease, "s")
        row.expires_at_ms = 1
        self.ledger.record(row)

    def trade(self, region="hk"):
        holder = LeaseHolder(
            self.ledger, "s", home="hk", region=region, holder=f"{region}-{id(object())}",
            trades=True,
        )  # fmt: skip
        assert holder.acquire()
        return holder

    def hedges(self):
        return self.ledger.rows(BrokerOrder, kind="hedge")


@pytest.fixture
def world(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ticket = OrderTicket("p", "s", "HSI", "buy", "entry", 500.0, 100.0, 1)
    with ledger.session() as session:
        queue(session, ticket)
    Sender(ledger, PaperOptions(tmp_path / "entries"), "s").work()
    found = World(ledger, tmp_path)
    found.trade()
    yield found
    ledger.close()


def looks(watch, n=MISSES):
    return [watch.look().standing for _ in range(n)]


def test_a_region_that_holds_its_lease_is_not_hedged_however_silent(world):
    assert looks(world.watch(), 2 * MISSES) == ["there"] * (2 * MISSES)


def test_a_region_is_gone_after_looks_in_a_row_and_hedged_once(world):
    world.expire()
    watch = world.watch()
    assert looks(watch, MISSES + 2) == ["there", "there", "fired", "hedged", "hedged"]
    (order,) = world.hedges()
    assert (order.side, order.status, order.instrument.split()[2]) == ("buy", "sent", "P")
    assert len(world.ledger.rows(Hedge)) == 1


@pytest.mark.parametrize("what", ["server", "market"])
def test_a_region_of_which_something_answers_is_not_hedged(world, what):
    world.expire()
    setattr(world, what, True)
    assert looks(world.watch(), 2 * MISSES) == ["there"] * (2 * MISSES)
    assert world.hedges() == []


def test_the_home_region_may_come_back_as_soon_as_the_order_is_out(world):
    world.expire()
    watch = world.watch()
    looks(watch)
    world.trade()
    assert watch.look().standing == "recovered"
    assert [order.status for order in world.hedges()] == ["cancelled"]
    assert watch.look().standing == "there"


def test_one_answer_of_a_server_does_not_take_a_hedge_back(world):
    world.expire()
    watch = world.watch()
    looks(watch)
    world.server = True
    assert watch.look().standing == "hedged"
    assert [order.status for order in world.hedges()] == ["sent"]


def test_another_region_that_trades_on_takes_it_back_and_its_own_end_is_another_outage(world):
    world.expire()
    watch = world.watch()
    looks(watch)
    world.trade("us")
    assert watch.look().standing == "recovered"
    world.expire()
    assert looks(watch, 1) == ["fired"]
    assert [order.status for order in world.hedges()].count("sent") == 1


def test_a_hedge_that_was_taken_back_by_hand_stays_so_and_the_lease_is_left_alone(world):
    world.expire()
    looks(world.watch())
    recover(world.ledger, "s")
    token, watch = lease_state(world.ledger, "s").token, world.watch()
    looks(watch)
    assert watch.look().why == "this outage was hedged, and the hedge taken back by hand"
    assert lease_state(world.ledger, "s").token == token
    assert [order.status for order in world.hedges()] == ["cancelled"]


def test_one_regions_watch_leaves_orders_for_anothers_broker_alone(world):
    world.expire()
    us = PaperOptions(world.folder / "us.jsonl", fills_at_once=False)
    eu = PaperOptions(world.folder / "eu.jsonl", fills_at_once=False)
    looks(world.watch("us", broker=us))
    other = world.watch("eu", broker=eu)
    looks(other)
    world.trade()
    assert other.look().standing == "recovered"
    assert [order.status for order in world.hedges()] == ["cancelling"]  # us must tell its own
    looks(world.watch("us", broker=us), 1)
    assert [order.status for order in world.hedges()] == ["cancelled"]


@pytest.mark.parametrize("region", ["us", "eu"])
def test_a_hedge_whose_sender_died_is_sent_by_the_next(world, region):
    world.expire()

    class Dies(PaperOptions):
        def send(self, ticket):
            raise Killed

    watch = world.watch(broker=Dies(world.folder / "none"))
    with pytest.raises(Killed):
        looks(watch)
    world.expire()  # the lease of the one that died ends

    assert looks(world.watch(region)) == ["hedged"] * MISSES
    assert [(row.status, row.payload["region"]) for row in world.hedges()] == [("sent", region)]


def test_a_hedge_waits_for_its_broker_under_the_lease(world):
    world.expire()

    class Away(PaperOptions):
        is_away = True

        def send(self, ticket):
            if self.is_away:
                raise BrokerError("nothing answers")
            super().send(ticket)

    broker = Away(world.folder / "broker.jsonl", fills_at_once=False)
    watch = world.watch(broker=broker)
    looks(watch, MISSES - 1)
    assert "not sent yet: nothing answers" in watch.look().why
    assert lease_state(world.ledger, "s").region == "us"
    broker.is_away = False
    assert watch.look().standing == "hedged"
    assert [order.status for order in world.hedges()] == ["sent"]
    assert lease_state(world.ledger, "s").left_ms <= 0


def test_two_that_watch_hedge_once(world):
    world.expire()
    watches = [world.watch("us"), world.watch("eu")]
    found = [watch.look().standing for _ in range(MISSES + 1) for watch in watches]
    assert found.count("fired") == 1
    assert len(world.hedges()) == 1


def test_stale_figures_hedge_nothing(world):
    stale = HedgeConfig(**{**vars(CONFIG), "as_of": day(-9)})
    world.expire()
    watch = world.watch(config=stale)
    looks(watch, MISSES - 1)
    with pytest.raises(ConfigError, match="9 days old: the most is 7"):
        watch.look()
    assert world.hedges() == []


def test_orders_that_are_traded_are_not_the_hedgers_to_send(world):
    with world.ledger.session() as session:
        queue(session, OrderTicket("q", "s", "HSI", "sell", "exit", 500.0, 100.0, 2))
    world.expire()
    looks(world.watch())
    assert world.ledger.get(BrokerOrder, "q").status == "queued"
