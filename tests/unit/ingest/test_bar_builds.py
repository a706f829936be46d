"""Bars built from files and recordings, written and read again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_cases import START_S, random_walk
from trademl.errors import DataError
from trademl.ingest.bar_batches import BarsConfig, bars_of_feed
from trademl.ingest.bar_builds import build_bars
from trademl.ingest.bar_files import read_bars
from trademl.ingest.sessions import session_spans
from trademl.ingest.sources import FeedConfig
from trademl.market.quotes import NS_PER_S

START_NS = START_S * NS_PER_S


@pytest.fixture
def prints(tmp_path):
    rng = np.random.default_rng(1)
    time = pa.array(START_NS + np.arange(500) * NS_PER_S).cast(pa.timestamp("ns", "UTC"))
    price = 1000 + 0.25 * np.cumsum(rng.integers(-1, 2, 500))
    path = tmp_path / "prints.parquet"
    pq.write_table(
        pa.table({"time": time, "price": price, "volume": rng.integers(1, 9, 500)}), path
    )
    return FeedConfig(quotes=str(path), tick_size=0.25)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(
    ("by", "size"), [("time", 60), ("tick", 7), ("volume", 100), ("dollar", 5e4)]
)
def test_what_is_written_is_read_again(prints, tmp_path, by, size, suffix):
    built = build_bars(prints, by, size, out=tmp_path / f"bars{suffix}")
    again = read_bars(tmp_path / f"bars{suffix}")
    for name in ("ts_open", "ts_close", "open", "high", "low", "close", "spread"):
        np.testing.assert_array_equal(getattr(again, name), getattr(built.bars, name))


def test_npz_holds_the_same_columns(prints, tmp_path):
    built = build_bars(prints, "tick", 7, out=tmp_path / "bars.npz")
    found = np.load(tmp_path / "bars.npz")
    np.testing.assert_array_equal(found["bid_close"], built.bars.close)
    np.testing.assert_array_equal(found["volume"], built.ticks.volume)


def test_a_stored_recording_has_no_sizes_of_trades(prints):
    quotes = random_walk(300)
    assert len(build_bars(prints, "tick", 10, quotes=quotes)) == 30
    with pytest.raises(DataError, match="no sizes, so there are no bars by volume"):
        build_bars(prints, "volume", 10, quotes=quotes)


def test_a_clock_that_nothing_fills_is_refused(prints):
    with pytest.raises(DataError, match="500 ticks fill no bar by tick of 600"):
        build_bars(prints, "tick", 600)


def test_no_bar_spans_the_sessions_opening():
    # 17:00 in Chicago on 14 November 2023 is 23:00 UTC
    quotes = random_walk(200)
    opening_ns = 1_700_002_800 * NS_PER_S
    near = quotes.ts_event - quotes.ts_event[100] + opening_ns
    feed = FeedConfig(timezone="America/Chicago", session_open="17:00")
    bars = build_bars(
        feed, "tick", 30, quotes=type(quotes)(near, *(getattr(quotes, n) for n in
        ("bid", "ask", "mid_open", "high", "low", "flags")))
    ).bars  # fmt: skip
    assert opening_ns in bars.ts_close
    assert not ((bars.ts_open < opening_ns) & (bars.ts_close > opening_ns)).any()


def test_sessions_follow_daylight_saving():
    # Clocks in Chicago went forward on 10 March 2013: that session had 23 hours.
    at = np.array([np.datetime64("2013-03-09T23:30", "ns").astype(np.int64)])
    opens, closes = session_spans(at, timezone="America/Chicago", session_open="17:00")
    assert (closes - opens).tolist() == [23 * 3600 * NS_PER_S]


def test_a_strategy_reads_one_instrument_of_a_files_bars(tmp_path):
    time = pa.array(np.repeat(START_NS + 60 * NS_PER_S * np.arange(5), 2)).cast(
        pa.timestamp("ns", "UTC")
    )
    price = np.tile([10.0, 20.0], 5)
    table = {"contract": np.tile([201312, 201403], 5), "time": time}
    table |= dict.fromkeys(("open", "high", "low", "close"), price)
    pq.write_table(pa.table(table), tmp_path / "bars.parquet")
    feed = FeedConfig(quotes=str(tmp_path / "bars.parquet"), instrument="201403")
    bars = bars_of_feed(feed, BarsConfig("file", spread=0.0))
    assert bars.close.tolist() == [20.0] * 5
    with pytest.raises(DataError, match="holds 2 instruments"):
        bars_of_feed(
            FeedConfig(quotes=feed.quotes, instrument="ES"), BarsConfig("file", spread=0.0)
        )
