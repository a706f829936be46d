"""A recording comes into the tick store once, whoever brings it and however many at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from sqlalchemy import event

from market_cases import make_quotes
from trademl.ingest import tick_store
from trademl.ingest.tick_store import TickStore

QUOTES = make_quotes(np.arange(45.0) + 100, spread=0.0)


@pytest.fixture
def stores(tmp_path):
    """Return the store as two processes have it open."""
    opened = [TickStore(f"sqlite:///{tmp_path / 'ticks.db'}") for _ in range(2)]
    yield opened
    for store in opened:
        store.close()


def append(store):
    return store.append("recording-1", "ES", "q.csv", QUOTES)


def test_two_who_bring_the_same_recording_at_once_store_it_once(stores, monkeypatch):
    monkeypatch.setattr(tick_store, "BLOCK", 10)
    one, two = map(append, stores)
    assert [next(one), next(two), next(one)] == [10, 20, 30]
    assert [*two, *one] == [40, 45]
    (found,) = stores[0].recordings()
    assert (found.n_quotes, found.is_complete) == (45, True)
    assert stores[1].load("recording-1").bid.tolist() == QUOTES.bid.tolist()


def test_a_recording_that_another_process_names_meanwhile_is_the_same(stores):
    def name_first(_connection, _cursor, statement, *_):
        if statement.startswith("INSERT INTO recordings"):
            list(append(stores[1]))

    event.listen(stores[0].engine, "before_cursor_execute", name_first)
    assert list(append(stores[0])) == []
    assert [found.n_quotes for found in stores[0].recordings()] == [45]


def test_processes_that_make_a_store_together_make_it_once(tmp_path):
    barrier = Barrier(4)

    def open_it(path):
        barrier.wait()
        TickStore(f"sqlite:///{path}").close()

    with ThreadPoolExecutor(4) as pool:
        for number in range(12):
            list(pool.map(open_it, [tmp_path / f"{number}.db"] * 4))
            assert (tmp_path / f"{number}.db").exists()
