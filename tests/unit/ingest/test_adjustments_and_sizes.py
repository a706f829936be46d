"""Splits, dividends, rolls and sizes shown, from the feed's files to the fills."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_cases import make_quotes
from trademl.errors import DataError
from trademl.ingest.adjustment_file import read_adjustments
from trademl.ingest.batch import read_batch
from trademl.ingest.order_bot import OrderBotConfig
from trademl.ingest.replay import export, recording_id, replay
from trademl.ingest.sources import FeedConfig, read_quotes
from trademl.ingest.tick_store import TickStore
from trademl.ledger import Ledger
from trademl.market.costs import Costs
from trademl.market.events import Event
from trademl.store.artifacts import ArtifactStore

BOT = OrderBotConfig(
    interval_s=10, barrier_unit="price", take_profit=50, stop_loss=50, time_limit_s=100
)


@pytest.fixture
def feed(tmp_path):
    """Return a feed that pays 1 after 150 s and is split in two after 200 s, sizes shown."""
    n = 400
    bid = np.where(np.arange(n) < 200, 100.0, 50.0)
    quotes = make_quotes(bid, spread=0.0)
    table = {
        "ts_event": quotes.ts_event, "bid": bid, "ask": bid,
        "bid_size": np.full(n, 0.5), "ask_size": np.full(n, 0.5),
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "q.parquet")
    ts = quotes.ts_event
    (tmp_path / "events.csv").write_text(f"ts_event,split,dividend\n{ts[200]},2,\n{ts[150]},,1.0\n")
    return FeedConfig(quotes=str(tmp_path / "q.parquet"), adjustments=str(tmp_path / "events.csv"))


@pytest.fixture
def exported(feed, tmp_path):
    """Return a feed's only batch, by way of the tick store."""
    ticks = TickStore(f"sqlite:///{tmp_path / 'ticks.db'}")
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")

    def make(costs=Costs(), **told):  # noqa: B008 - frozen
        recording = replay(replace(feed, **told), ticks)
        store = ArtifactStore(tmp_path / "artifacts")
        (batch,) = export(recording, ticks, BOT, costs, store, ledger)
        return read_batch(batch)

    yield make
    ticks.close()
    ledger.close()


def test_a_feed_is_adjusted_by_its_events_in_order_of_time(feed):
    quotes = read_quotes(feed)

    assert set(quotes.bid.tolist()) == {100.0}
    assert set(quotes.high.tolist()) == {100.0}
    assert [event.dividend for event in quotes.events] == [1.0, 0.0]
    assert set(quotes.ask_size[200:].tolist()) == {0.25}


def test_batches_keep_sizes_and_events_on_their_way_through_the_tick_store(exported, feed):
    batch, quotes = exported(), read_quotes(feed)

    assert batch.quotes.events == quotes.events
    n = len(batch.quotes)
    np.testing.assert_array_equal(batch.quotes.bid_size, quotes.bid_size[:n])


def test_labels_are_paid_dividends_and_see_no_split(exported):
    done = exported().transactions
    decided_s = np.arange(0, 10 * len(done), 10)

    over = (decided_s < 150) & (decided_s + 100 >= 150)
    np.testing.assert_array_equal(done.pnl, np.where(over, 1.0, 0.0))


def test_an_order_larger_than_what_is_shown_leaves_in_parts(exported):
    shown = exported().transactions
    whole = exported(Costs(partial_fills=False)).transactions

    assert (shown.exit_index >= whole.exit_index).all()
    assert len(shown) == len(whole)


def test_another_file_of_events_is_another_recording(feed, tmp_path):
    before = recording_id(feed)
    (tmp_path / "events.csv").write_text("ts_event,split\n1700000000000000000,3\n")

    assert len({before, recording_id(feed), recording_id(replace(feed, adjustments=""))}) == 3


def test_a_tick_store_of_an_older_trademl_is_brought_forward(tmp_path):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    store = TickStore(url)
    with store.engine.begin() as connection:
        for name in ("bid_size", "ask_size"):
            connection.exec_driver_sql(f"ALTER TABLE ticks DROP COLUMN {name}")
        connection.exec_driver_sql("DROP TABLE adjustments")
    store.close()
    quotes = replace(
        make_quotes([100.0, 101.0]), bid_size=np.array([1.0, 2.0]), ask_size=np.array([3.0, 0.0])
    )

    store = TickStore(url)
    list(store.append("recording-1", "X", "x", quotes))
    found = store.load("recording-1")
    store.close()

    assert found.ask_size.tolist() == [3.0, 0.0]


def test_events_are_read_with_rolls_where_a_gap_is_given(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text("time,split,roll_gap\n2024-01-02T00:00:00Z,,1.5\n2024-01-01T00:00:00Z,4,\n")

    first, second = read_adjustments(path)

    assert (first.split, first.is_roll) == (4.0, False)
    assert (second.roll_gap, second.is_roll) == (1.5, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ts_event,price\n1,2\n", "has no column split, dividend or roll_gap"),
        ("ts_event,split,dividend\n1,,\n", "line 2 tells of nothing"),
        ("ts_event,split\n1,0\n", "line 2: a split of 0.0"),
        ("split\n2\n", "has no column ts_event or time"),
        ("ts_event,split\n1,two\n", "expected numbers"),
    ],
)
def test_a_file_of_events_with_rubbish_names_what_is_wrong(tmp_path, text, said):
    path = tmp_path / "e.csv"
    path.write_text(text)

    with pytest.raises(DataError, match=said):
        read_adjustments(path)


def test_what_happened_is_a_number():
    with pytest.raises(DataError, match="a split of inf"):
        Event(1, split=float("inf"))
