"""Market state and declared delay, carried from a file through tick store and batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from market_cases import random_walk
from trademl.errors import DataError
from trademl.ingest.batch import Batch, read_batch_files, write_batch
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.ingest.replay import export
from trademl.ingest.sources import FeedConfig, read_quotes
from trademl.ingest.tick_store import TickStore
from trademl.ledger import Ledger
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.store.artifacts import ArtifactStore

HEADER = "time,bid,ask,MARKET_STATE,MARKET_DELAY\n"
LINES = [
    "2024-01-02T00:00:00Z,10,11,TRADEABLE,0\n",
    "2024-01-02T00:00:01Z,10,11,CLOSED,0\n",
    "2024-01-02T00:00:02Z,10,11,,1\n",
]


def with_state(quotes):
    n = len(quotes)
    state = np.array(["TRADEABLE"] * n, object)
    state[5] = None
    delay_s = np.zeros(n)
    delay_s[7] = np.nan
    return replace(quotes, market_state=state, market_delay_s=delay_s)


def same(one, other):
    assert one.market_state.tolist() == other.market_state.tolist()
    np.testing.assert_array_equal(one.market_delay_s, other.market_delay_s)
    np.testing.assert_array_equal(one.flags, other.flags)


def test_a_recording_s_state_and_delay_are_read(write_csv):
    quotes = read_quotes(FeedConfig(quotes=str(write_csv(HEADER + "".join(LINES)))))
    assert quotes.market_state.tolist() == ["TRADEABLE", "CLOSED", None]
    assert quotes.market_delay_s.tolist() == [0.0, 0.0, 1.0]
    assert quotes.flags.tolist() == [0, 4, 0]


def test_a_market_closed_all_along_is_refused(write_csv):
    path = write_csv(HEADER + LINES[1])
    with pytest.raises(DataError, match="of a market that is not TRADEABLE"):
        read_quotes(FeedConfig(quotes=str(path)))


def test_a_closed_market_is_not_taken_for_bad_columns(write_csv):
    path = write_csv(HEADER + LINES[0] + LINES[1].replace(":01Z", ":03Z"))
    assert len(read_quotes(FeedConfig(quotes=str(path)))) == 2


def test_a_negative_delay_is_refused(write_csv):
    path = write_csv(HEADER + LINES[0].replace(",0\n", ",-1\n"))
    with pytest.raises(DataError, match="line 2 has market_delay -1"):
        read_quotes(FeedConfig(quotes=str(path)))


@pytest.fixture
def store(tmp_path):
    store = TickStore(f"sqlite:///{tmp_path / 'ticks.db'}")
    yield store
    store.close()


def test_the_tick_store_gives_back_what_it_was_given(store):
    quotes = with_state(random_walk(50))
    list(store.append("recording-1", "X", "file", quotes))
    same(store.load("recording-1"), quotes)


def test_a_recording_without_them_has_none(store):
    list(store.append("recording-1", "X", "file", random_walk(50)))
    loaded = store.load("recording-1")
    assert loaded.market_state is None
    assert loaded.market_delay_s is None


def test_a_batch_gives_back_what_it_was_given(tmp_path):
    quotes = with_state(random_walk(300))
    orders = place_orders(quotes, OrderBotConfig(barrier_unit="price", time_limit_s=20))
    done = settle(quotes, orders, Costs())
    rows = np.flatnonzero(done.exit_index >= 0)
    batch = Batch(quotes, orders.take(rows), done.take(rows), rows)
    write_batch(tmp_path, batch, instrument="X", first_seq=0)
    read = read_batch_files(tmp_path / "prices.csv", tmp_path / "transactions.csv")
    same(read.quotes, quotes)


@pytest.fixture
def delayed(store, tmp_path):
    """Return a function that exports a recording of which one quote in ten is a second late."""
    quotes = random_walk(400)
    quotes = replace(quotes, market_delay_s=(np.arange(400) % 10 == 3) * 1.0)
    list(store.append("recording-1", "X", "file", quotes))
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    bot = OrderBotConfig(barrier_unit="price", interval_s=1, time_limit_s=20)

    def run(max_delay_s):
        artifacts = ArtifactStore(tmp_path / "artifacts")
        (batch,) = export(
            "recording-1", store, bot, Costs(), artifacts, ledger, max_delay_s=max_delay_s
        )
        return read_batch_files(batch.file("prices.csv"), batch.file("transactions.csv"))

    yield run
    ledger.close()


def test_no_order_of_a_batch_touches_a_delayed_quote(delayed):
    batch = delayed(0.5)
    late = np.flatnonzero(batch.quotes.market_delay_s > 0.5)
    assert (batch.quotes.flags[late] == 8).all()
    for index in (batch.orders.quote_index, batch.transactions.exit_index):
        assert not np.isin(index, late).any()


def test_a_delay_within_the_limit_is_traded_on(delayed):
    batch = delayed(2.0)
    assert not batch.quotes.flags.any()
    assert np.isin(batch.orders.quote_index, np.flatnonzero(batch.quotes.market_delay_s)).any()
