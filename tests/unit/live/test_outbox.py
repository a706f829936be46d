"""Orders leave once, whatever dies meanwhile; fills are accounted once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trademl.errors import BrokerError, DataError, StoreError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerFilled, BrokerOrder, Lease
from trademl.live.outbox import Fence, ask_cancel, order_key, queue
from trademl.live.paper_options import PaperOptions
from trademl.live.positions import positions
from trademl.live.sender import Sender
from trademl.ports import BrokerFill, OrderTicket

FAR_FUTURE_MS = 2**42
PUT = OrderTicket(
    key="k1", strategy="diana", instrument="EWH P20", side="buy", kind="hedge", quantity=3.0,
    limit_price=1.25, created_at_ns=1_700_000_000_000_000_000, payload={"delta": -0.4},
)  # fmt: skip


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def broker(tmp_path):
    return PaperOptions(tmp_path / "broker.jsonl", fee_per_contract=0.5)


def put(ledger, ticket=PUT, **more):
    with ledger.session() as session:
        return queue(session, ticket, **more)


def status(ledger, key="k1"):
    return ledger.get(BrokerOrder, key).status


def sender(ledger, broker, **more):
    return Sender(ledger, broker, "diana", now_ns=lambda: 7, **more)


def grant(ledger, token, expires_at_ms=FAR_FUTURE_MS):
    ledger.record(
        Lease(
            name="diana", home="hk", region="hk", holder="hk-1", token=token, home_token=token,
            expires_at_ms=expires_at_ms,
        )
    )  # fmt: skip


def test_an_order_is_queued_sent_and_filled_at_its_premium(ledger, broker):
    assert put(ledger)
    assert status(ledger) == "queued"

    done = sender(ledger, broker).work()

    assert done.sent == ("k1",)
    assert done.fills == (BrokerFill("k1", 1, PUT.created_at_ns, 3.0, 1.25, 1.5),)
    assert status(ledger) == "filled"
    assert ledger.get(BrokerOrder, "k1").sent_at_ns == 7


def test_the_order_is_lost_only_with_its_decision(ledger):
    with pytest.raises(Killed), ledger.session() as session:
        queue(session, PUT)
        raise Killed

    assert ledger.rows(BrokerOrder) == []


def test_the_same_order_twice_is_one_order(ledger):
    assert put(ledger)
    assert not put(ledger)


def test_a_key_stands_for_one_order_alone(ledger):
    put(ledger)
    with pytest.raises(StoreError, match=r"with quantity 3\.0, not 4\.0"):
        put(ledger, replace(PUT, quantity=4.0))


@pytest.mark.parametrize(
    "change",
    [
        {"key": ""}, {"key": "a" * 37}, {"key": "a b"}, {"side": "long"}, {"kind": "whim"},
        {"quantity": 0.0}, {"quantity": float("nan")}, {"limit_price": float("inf")},
        {"instrument": ""}, {"strategy": "s" * 81},
    ],
)  # fmt: skip
def test_an_order_that_no_broker_could_take_is_refused(ledger, change):
    with pytest.raises(DataError):
        put(ledger, replace(PUT, **change))


def test_keys_differ_where_the_parts_do():
    assert order_key("diana", 1) == order_key("diana", 1)
    assert order_key("diana", 11) != order_key("diana1", 1)
    assert len(order_key("diana", 1)) <= 30


class Mortal:
    """Counts every step of the sender towards its ledger and broker, and dies at the n-th."""

    def __init__(self, broker, ledger, dies_at, monkeypatch):
        self.broker, self.steps, self.dies_at = broker, 0, dies_at
        self.name = broker.name
        session = ledger.session

        def mortal_session():
            self.tick()
            return session()

        monkeypatch.setattr(ledger, "session", mortal_session)

    def tick(self):
        self.steps += 1
        if self.steps == self.dies_at:
            raise Killed

    def __getattr__(self, name):
        method = getattr(self.broker, name)

        def call(*arguments):
            self.tick()
            result = method(*arguments)
            self.tick()
            return result

        return call


def test_killed_between_any_two_steps_an_order_goes_out_exactly_once(tmp_path):
    died, dies_at = True, 0
    while died:
        dies_at += 1
        ledger = Ledger(f"sqlite:///{tmp_path}/{dies_at}.db")
        broker = PaperOptions(tmp_path / f"{dies_at}.jsonl")
        put(ledger)
        died = False
        with pytest.MonkeyPatch.context() as monkeypatch:
            try:
                sender(ledger, Mortal(broker, ledger, dies_at, monkeypatch)).work()
            except Killed:
                died = True
        sender(ledger, broker).work()

        assert status(ledger) == "filled"
        assert len(ledger.rows(BrokerFilled)) == 1
        assert len((tmp_path / f"{dies_at}.jsonl").read_text().splitlines()) == 1
        ledger.close()
    assert dies_at > 8


def test_an_order_of_an_unreachable_broker_waits(ledger, broker):
    class Away:
        name = "away"

        def send(self, ticket):
            raise BrokerError("no route to the broker")

    put(ledger)

    assert sender(ledger, Away()).work().unreachable == "no route to the broker"
    assert status(ledger) == "sending"
    sender(ledger, broker).work()
    assert status(ledger) == "filled"


def test_a_rejected_order_says_why_and_is_not_sent_again(ledger, broker):
    put(ledger, replace(PUT, limit_price=None))

    assert sender(ledger, broker).work().rejected == ("k1",)
    assert sender(ledger, broker).work().rejected == ()
    assert "no premium" in ledger.get(BrokerOrder, "k1").reason


def test_what_was_not_sent_is_cancelled_at_once(ledger, broker):
    put(ledger)

    assert ask_cancel(ledger, "k1", "the market closed") == "cancelled"
    assert sender(ledger, broker).work().sent == ()


def test_what_rests_is_cancelled_at_the_broker(ledger, tmp_path):
    broker = PaperOptions(tmp_path / "b", fills_at_once=False)
    put(ledger)
    sender(ledger, broker).work()

    assert ask_cancel(ledger, "k1", "recovered") == "cancelling"
    assert sender(ledger, broker).work().cancelled == ("k1",)
    assert status(ledger) == "cancelled"
    assert '"cancelled"' in (tmp_path / "b").read_text()


def test_a_fill_that_came_before_the_cancellation_counts(ledger, broker):
    put(ledger)
    broker.send(PUT)  # filled there, and the sender died before it knew
    with ledger.session() as session:
        session.get(BrokerOrder, "k1").status = "sending"

    ask_cancel(ledger, "k1", "recovered")

    assert sender(ledger, broker).work().cancelled == ()
    assert status(ledger) == "filled"


def test_a_send_after_its_cancellation_never_fills(broker):
    broker.cancel("k1")
    broker.send(PUT)

    assert broker.fills("")[0] == []


def test_a_filled_order_cannot_be_cancelled(ledger, broker):
    put(ledger)
    sender(ledger, broker).work()

    assert ask_cancel(ledger, "k1", "too late") == "filled"


def test_cancelling_what_is_not_there_is_an_error(ledger):
    with pytest.raises(StoreError, match="no order k9"):
        ask_cancel(ledger, "k9", "?")


def test_a_fenced_order_goes_out_while_its_lease_stands(ledger, broker):
    grant(ledger, 4)
    put(ledger, fence=Fence("diana", 4))

    assert sender(ledger, broker).work().sent == ("k1",)


@pytest.mark.parametrize(("token", "expires_at_ms"), [(5, FAR_FUTURE_MS), (4, 1)])
def test_an_order_whose_fence_fell_is_never_sent(ledger, broker, token, expires_at_ms):
    grant(ledger, token, expires_at_ms)
    put(ledger, fence=Fence("diana", 4))

    assert sender(ledger, broker).work().cancelled == ("k1",)
    assert broker.fills("")[0] == []


def test_an_order_half_sent_when_its_fence_fell_is_cancelled_at_the_broker(ledger, broker):
    grant(ledger, 5)
    put(ledger, fence=Fence("diana", 4))
    with ledger.session() as session:
        session.get(BrokerOrder, "k1").status = "sending"

    assert sender(ledger, broker).work().cancelled == ("k1",)
    broker.send(PUT)
    assert broker.fills("")[0] == []


def test_an_order_waits_while_its_lease_ends_too_soon_to_send_it(ledger, broker):
    import time

    grant(ledger, 4, time.time_ns() // 10**6 + 60_000)
    put(ledger, fence=Fence("diana", 4))

    sender(ledger, broker, spare_ms=120_000).work()

    assert status(ledger) == "queued"


def test_another_strategys_orders_are_left_alone(ledger, broker):
    put(ledger, replace(PUT, strategy="alice"))

    assert sender(ledger, broker).work().sent == ()
    assert status(ledger) == "queued"


class Partly(PaperOptions):
    """Fills 2 of 3 contracts, in two parts."""

    def fills(self, cursor):
        parts = [BrokerFill("k1", 1, 10, 0.5, 1.0, 0.1), BrokerFill("k1", 2, 11, 1.5, 2.0, 0.1)]
        return parts, ""


def test_a_part_of_an_order_leaves_it_open_and_is_counted_once(ledger, tmp_path):
    put(ledger)
    broker = Partly(tmp_path / "b", fills_at_once=False)

    assert len(sender(ledger, broker).work().fills) == 2
    assert sender(ledger, broker).work().fills == ()
    assert status(ledger) == "sent"
    (held,) = positions(ledger, "diana").values()
    assert (held.quantity, held.cash, held.fees) == (2.0, -3.5, 0.2)


def test_positions_are_purchases_minus_sales(ledger, broker):
    put(ledger)
    put(ledger, replace(PUT, key="k2", side="sell", kind="exit", quantity=3.0, limit_price=2.0))
    put(ledger, replace(PUT, key="k3", instrument="EWU P20", side="sell", quantity=1.0))
    sender(ledger, broker).work()

    held = positions(ledger, "diana")

    assert (held["EWH P20"].quantity, held["EWH P20"].cash) == (0.0, 2.25)
    assert held["EWU P20"].quantity == -1.0
    assert positions(ledger, "alice") == {}


def test_a_journal_cut_short_by_a_crash_goes_on(tmp_path):
    journal = tmp_path / "b"
    PaperOptions(journal).send(PUT)
    journal.write_bytes(journal.read_bytes() + b'{"did": "fil')

    broker = PaperOptions(journal)
    broker.send(replace(PUT, key="k2"))

    assert [fill.order_key for fill in broker.fills("")[0]] == ["k1", "k2"]
