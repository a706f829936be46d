"""Reading recordings, and every way in which one is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trademl.errors import ConfigError, DataError
from trademl.ingest.sources import FeedConfig, read_quotes, sample_path
from trademl.ingest.tick_rule import quotes_from_prints
from trademl.market.quotes import NS_PER_S, QuoteFlag
from trademl.market.seconds import second_grid

GOOD = "time,bid,offer\n2024-01-02T00:00:00Z,10.0,10.5\n2024-01-02T00:00:01Z,11.0,11.5\n"


def read(path, **settings):
    return read_quotes(FeedConfig(quotes=str(path), **settings))


@pytest.fixture(scope="module")
def sample():
    return read_quotes(FeedConfig(tick_size=0.25, timezone="America/Chicago", session_open="17:00"))


def test_bid_and_offer_are_read_in_utc_ns(write_csv):
    quotes = read(write_csv(GOOD))
    assert quotes.ts_event.tolist() == [1704153600 * NS_PER_S, 1704153601 * NS_PER_S]
    assert quotes.ask.tolist() == [10.5, 11.5]
    assert quotes.high.tolist() == [10.25, 11.25]
    assert quotes.mid_open.tolist() == [10.25, 10.25]


def test_compressed_csv_is_read(tmp_path):
    path = tmp_path / "q.csv.gz"
    path.write_bytes(gzip.compress(GOOD.encode()))
    assert len(read(path)) == 2


def test_naive_times_are_read_in_their_zone(write_csv):
    text = GOOD.replace("Z", "")
    assert read(write_csv(text), timezone="America/Chicago").ts_event[0] == 1704175200 * NS_PER_S


def test_session_begins_anew_at_its_local_opening(write_csv):
    text = "time,bid,ask\n" + "".join(
        f"2024-01-02 {t},{p},{p + 1}\n"
        for t, p in (("16:59:58", 10), ("16:59:59", 12), ("17:00:00", 8))
    )
    quotes = read(write_csv(text), timezone="America/Chicago", session_open="17:00")
    assert quotes.mid_open.tolist() == [10.5, 10.5, 8.5]
    assert quotes.high.tolist() == [10.5, 12.5, 8.5]


def test_few_bad_quotes_are_kept_and_flagged(write_csv):
    good = "".join(f"2024-01-02T00:01:{s:02d}Z,10,11\n" for s in range(40))
    text = f"time,bid,ask\n2024-01-02T00:00:00Z,12,11\n2024-01-02T00:00:01Z,,11\n{good}"
    flags = read(write_csv(text)).flags
    assert flags[:3].tolist() == [QuoteFlag.CROSSED, QuoteFlag.ONE_SIDED, 0]


def test_equal_times_keep_file_order(write_csv):
    text = "time,bid,ask\n" + "".join(f"2024-01-02T00:00:00Z,{p},20\n" for p in (12, 10, 11))
    assert read(write_csv(text)).bid.tolist() == [12.0, 10.0, 11.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("time,bid,ask\n", "holds no rows"),
        ("time,bid\n2024-01-02T00:00:00Z,1\n", "has no column ask or offer; it has time, bid"),
        ("when,bid,ask\n2024-01-02T00:00:00Z,1,2\n", "has no column ts_event or time"),
        (GOOD.replace("Z", ""), "say which with --tz"),
        ("time,price\n2024-01-02T00:00:00Z,1\n", "give --tick-size"),
        (
            GOOD.replace("00:01Z", "00:01Z").replace("00:00:00Z", "00:00:09Z"),
            "line 3 is at .* before the one before it",
        ),
        ("time,bid,ask\n2024-01-02T00:00:00Z,1,2\n2024-01-02T00:00:01Z,,\n", "line 3 has neither"),
        (GOOD.replace("11.0,", "-1,"), "line 3 has bid -1, expected a finite number"),
        (GOOD.replace("11.0,", "12.0,"), "1 of 2 quotes .* are crossed"),
        (GOOD.replace("11.0,", "abc,"), "column bid holds string"),
        ("time,open,high,low,close\n2024-01-02T00:00:00Z,1,1,1,1\n", "holds bars"),
        (
            "symbol,time,bid,ask\nA,2024-01-02T00:00:00Z,1,2\nB,2024-01-02T00:00:00Z,1,2\n",
            "holds 2 instruments",
        ),
        ("time,bid,ask\n1704153600,1,2\n", "expected timestamps"),
        ("ts_event,bid,ask\n1704153600000,1,2\n", "line 2 is at 1970-01-01.*UTC nanoseconds"),
    ],
)
def test_bad_file_is_refused_in_one_line(write_csv, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read(write_csv(text))
    assert "\n" not in str(caught.value)


def test_many_bad_quotes_are_read_when_asked(write_csv):
    assert len(read(write_csv(GOOD.replace("11.0,", "12.0,")), allow_bad_quotes=True)) == 2


def test_truncated_parquet_is_refused(tmp_path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.table({"time": [1], "bid": [1.0], "ask": [2.0]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read(path)


def test_unknown_zone_and_bad_opening_are_named(write_csv):
    with pytest.raises(ConfigError, match="Mars/Base"):
        read(write_csv(GOOD), timezone="Mars/Base")
    with pytest.raises(ConfigError, match="expected HH:MM"):
        read(write_csv(GOOD), session_open="25:00")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="is no file"):
        read(tmp_path / "nothing.parquet")


def test_tick_rule_by_hand():
    prices = np.array([10.0, 10.0, 9.75, 9.75, 10.0, 10.0])
    bid, ask = quotes_from_prints(prices, 0.25)
    assert bid.tolist() == [9.75, 9.75, 9.75, 9.75, 9.75, 9.75]
    assert ask.tolist() == [10.0, 10.0, 10.0, 10.0, 10.0, 10.0]


def test_sample_is_half_a_million_prints_on_the_tick_grid(sample):
    assert len(sample) == 500_000
    assert sample_path().stat().st_size < 1_000_000
    assert ((sample.bid * 4) % 1 == 0).all()
    assert (sample.spread == 0.25).all()


def test_sample_mids_do_not_bounce(sample):
    change = np.diff(second_grid(sample).last_T)
    assert abs(np.corrcoef(change[1:], change[:-1])[0, 1]) < 0.02
