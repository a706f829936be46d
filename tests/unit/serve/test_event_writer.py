"""Events on their way to the ledger: in order, never in the way, bounded, none lost silently."""

from __future__ import annotations

import threading

import pytest

from serving_cases import wait_until
from trademl.errors import StoreError
from trademl.ledger import Ledger
from trademl.ledger.serving_tables import ServingEvent
from trademl.serve.event_writer import Event, EventWriter
from trademl.serve.ledger_events import ledger_events


def event(n=0, **changes):
    facts = Event(n, "btc", "tier", "biggest", "smallest", "the queue is too long", {"wait_s": 0.1})
    return facts._replace(**changes)


class Journal:
    """A ledger that is there, away, or hangs."""

    def __init__(self):
        self.written, self.is_away = [], False
        self.n_tries = 0
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, events):
        self.n_tries += 1
        self.may_go.wait(20)
        if self.is_away:
            raise StoreError("the ledger is away")
        self.written += events


def numbers(journal):
    return [number for number, _ in journal.written]


def test_events_are_written_in_order_under_their_numbers():
    journal = Journal()
    with EventWriter(journal) as writer:
        for n in range(600):
            writer.put(event(n))

    assert journal.written == [(n + 1, event(n)) for n in range(600)]
    assert (writer.n_written, writer.n_dropped, writer.n_waiting) == (600, 0, 0)


def test_who_puts_an_event_waits_for_no_ledger():
    journal = Journal()
    journal.may_go.clear()
    with EventWriter(journal) as writer:
        for n in range(100):
            writer.put(event(n))  # would hang here
        assert writer.n_waiting == 100
        journal.may_go.set()

    assert numbers(journal) == list(range(1, 101))


def test_events_wait_while_the_ledger_is_away(caplog):
    journal = Journal()
    journal.is_away = True
    with EventWriter(journal, retry_s=0.001) as writer:
        writer.put(event(1))
        wait_until(lambda: journal.n_tries > 3)
        writer.put(event(2))
        journal.is_away = False
        wait_until(lambda: writer.n_waiting == 0)

    assert numbers(journal) == [1, 2]
    assert caplog.text.count("events are kept until the ledger is back") == 1


def test_beyond_the_bound_the_oldest_are_dropped_and_counted():
    journal = Journal()
    journal.is_away = True
    with EventWriter(journal, most=10, retry_s=0.001) as writer:
        for n in range(25):
            writer.put(event(n))
        wait_until(lambda: writer.n_dropped == 15)
        journal.is_away = False

    assert numbers(journal) == list(range(16, 26))
    assert (writer.n_written, writer.n_dropped) == (10, 15)


def test_a_ledger_that_hangs_holds_up_no_end(caplog):
    journal = Journal()
    journal.may_go.clear()
    writer = EventWriter(journal)
    writer.put(event())
    wait_until(lambda: journal.n_tries == 1)

    writer.close(within_s=0.01)

    journal.may_go.set()
    assert "1 events are lost" in caplog.text


def test_a_ledger_gets_an_event_once_however_often_it_is_written(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    write = ledger_events(ledger, "here/1")

    write([(1, event(5)), (2, event(6, kind="model"))])
    write([(2, event(6, kind="model"))])
    rows = ledger.rows(ServingEvent)
    ledger.close()

    assert [(r.server, r.number, r.at_ns, r.kind) for r in rows] == [
        ("here/1", 1, 5, "tier"),
        ("here/1", 2, 6, "model"),
    ]
    assert rows[0].facts == {"wait_s": 0.1}


def test_a_ledger_without_its_table_is_a_store_error(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE serving_events")

    with pytest.raises(StoreError):
        ledger_events(ledger, "here/1")([(1, event())])
    ledger.close()
