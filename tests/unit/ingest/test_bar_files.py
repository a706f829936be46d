"""Files of OHLC bars and of orders on them, and every way in which one is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trademl.errors import DataError
from trademl.ingest.bar_files import are_bars, open_bar_files, read_bars
from trademl.ingest.batch import whole_batch
from trademl.market.quotes import NS_PER_S

BOTH = """time,bid_open,bid_high,bid_low,bid,offer_open,offer_high,offer_low,offer
2024-01-02T00:00:00Z,10,12,9,11,10.5,12.5,9.5,11.25
2024-01-02T00:01:00Z,11,11,10,10,11.25,11.25,10.25,10.75
2024-01-02T00:05:00Z,10,13,10,13,10.5,13.5,10.5,13.5
"""
ONE = """time,open,high,low,close
2024-01-02T00:00:00Z,10,12,9,11
2024-01-02T01:00:00Z,11,11,10,10
"""
MIDNIGHT_NS = 1_704_153_600 * NS_PER_S


@pytest.fixture
def write(tmp_path):
    def write(text, name="bars.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_bars_of_both_sides_are_those_of_the_bid_and_the_wider_spread(write):
    bars = read_bars(write(BOTH))
    assert bars.ts_open.tolist() == [MIDNIGHT_NS + s * NS_PER_S for s in (0, 60, 300)]
    assert (bars.ts_close - bars.ts_open == 60 * NS_PER_S).all()
    assert bars.open.tolist() == [10, 11, 10]
    assert bars.high.tolist() == [12, 11, 13]
    assert bars.low.tolist() == [9, 10, 10]
    assert bars.close.tolist() == [11, 10, 13]
    assert bars.spread.tolist() == [0.5, 0.75, 0.5]


def test_columns_may_be_called_ask_and_close(write):
    named = (
        BOTH.replace("offer", "ask").replace("bid,", "bid_close,").replace("ask\n", "ask_close\n")
    )
    assert read_bars(write(named)).close.tolist() == [11, 10, 13]


def test_parquet_holds_the_same_bars(write, tmp_path):
    import pyarrow.csv

    pq.write_table(pyarrow.csv.read_csv(write(BOTH)), tmp_path / "bars.parquet")
    one, other = read_bars(tmp_path / "bars.csv"), read_bars(tmp_path / "bars.parquet")
    for name in one.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_bars_of_one_price_lie_half_a_spread_below_it(write):
    bars = read_bars(write(ONE), spread=0.5)
    assert bars.close.tolist() == [10.75, 9.75]
    assert bars.spread.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE, "has bars of one price, expected bid_open.*give the spread with --spread"),
        (BOTH.replace("offer_open", "what"), "has no column offer_open; it has time, bid_open"),
        (BOTH.replace("bid_low", "low"), "has no column bid_low"),
        (BOTH.replace(",13,10,13,", ",13,-1,13,"), "line 4 has bid_low -1, expected a finite number"),
        (BOTH.replace("00:05:00", "00:01:00"), "line 4 does not begin after the one before it"),
        (BOTH.replace("00:01:00", "00:09:00"), "line 4 does not begin after the one before it"),
        (BOTH.replace("Z,", ","), "carry no zone: say which with --tz"),
        (BOTH.replace(",12,9,11,", ",10,9,11,"), "bar 0 has .*high 10.0.*open and close between"),
        (BOTH.replace("11.25\n2024", "5\n2024").replace("10.5,12.5", "5,12.5"), "a spread of 0 or more"),
        ("\n".join(BOTH.splitlines()[:2]), "expected two bars or more"),
        ("time,bid_open\n", "holds no rows"),
        ("", "cannot be read|is empty"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused(write, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_bars(write(text))
    assert "\n" not in str(caught.value)


def test_several_instruments_are_refused(tmp_path):
    table = pa.table({"symbol": ["A", "B"], "time": [0, 1], "open": [1.0, 1.0]})
    pq.write_table(table, tmp_path / "bars.parquet")
    with pytest.raises(DataError, match="holds 2 instruments in column symbol"):
        read_bars(tmp_path / "bars.parquet")


def test_bars_are_told_from_quotes(write, tmp_path):
    assert are_bars(write(BOTH))
    assert are_bars(write(ONE))
    assert not are_bars(write("seq,ts_event,bid,ask\n", "prices.csv"))
    assert not are_bars(write("1593598800000,1,2\n", "price-1.csv"))


def orders_on(write, text, *, name="orders.csv"):
    return whole_batch(open_bar_files(write(BOTH), write(text, name), time_limit_s=90.0))


def test_an_order_is_decided_on_the_last_bar_that_ended(write):
    ends = [MIDNIGHT_NS + s * NS_PER_S for s in (60, 119.999, 120, 359, 1000)]
    lines = "".join(f"{int(at)},buy,1,2\n" for at in ends)
    batch = orders_on(write, "opened_at,side,take_profit,stop_loss\n" + lines)
    assert batch.orders.quote_index.tolist() == [0, 0, 1, 1, 2]
    assert batch.orders.time_limit_ns.tolist() == [90 * NS_PER_S] * 5
    assert batch.quotes.bid.tolist() == [11, 10, 13]
    assert batch.quotes.ask.tolist() == [11.5, 10.75, 13.5]
    assert np.isnan(batch.recorded_labels).all()


def test_limits_and_labels_of_orders_are_read_where_they_are(write):
    text = "opened_at,side,take_profit,stop_loss,time_limit_s,label\n"
    batch = orders_on(write, text + f"{MIDNIGHT_NS + 60 * NS_PER_S},sell,1,2,5,1\n")
    assert batch.orders.side.tolist() == [-1]
    assert batch.orders.time_limit_ns.tolist() == [5 * NS_PER_S]
    assert batch.recorded_labels.tolist() == [1.0]


def test_deals_of_the_original_are_orders_too(write):
    at_ms = MIDNIGHT_NS // 1_000_000 + 60_000
    batch = orders_on(write, f"{at_ms},loss,buy,2,1,10,8,11\n", name="deals-1.csv")
    assert (batch.orders.take_profit[0], batch.orders.stop_loss[0]) == (1, 2)
    assert batch.recorded_labels.tolist() == [0.0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0,buy,1,2", r"orders.csv: line 2: opened_at is '0', expected a time at or after the end of"),
        (f"{MIDNIGHT_NS * 2},hold,1,2", r"orders.csv: line 2: side is 'hold', expected buy or sell"),
        (f"{MIDNIGHT_NS * 2},buy,0,2", r"orders.csv: line 2: take_profit is '0', expected a number above"),
    ],
)  # fmt: skip
def test_a_bad_order_is_refused_with_its_line(write, line, message):
    with pytest.raises(DataError, match=message):
        orders_on(write, f"opened_at,side,take_profit,stop_loss\n{line}\n")
