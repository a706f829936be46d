"""The original demo's header-less files, and every way in which one is refused."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

import trademl.ingest.csv_columns as csv_columns
from trademl.errors import DataError
from trademl.ingest.original_files import read_original_batch, read_original_prices
from trademl.market.quotes import QuoteFlag

START_MS = 1_593_598_800_000
PRICE = (
    START_MS,
    5918.21,
    5954.21,
    5967.53,
    -31.32,
    -0.52,
    6177.0,
    5885.5,
    "11:03:40",
    "TRADEABLE",
    0,
)
DEAL = (START_MS, "profit", "buy", 20, 10, 5954.21, 5934.21, 5964.21)


def lines(*rows, quoted=False):
    cell = json.dumps if quoted else str
    return "".join(",".join(cell(c) for c in row) + "\n" for row in rows)


def tick(after_ms, bid=100.0, ask=101.0):
    return (START_MS + after_ms, bid, ask, 100.5, 0, 0, 102.0, 99.0, "11:03:40", "TRADEABLE", 0)


def deal(after_ms, outcome="profit", side="buy", price=101.0):
    return (START_MS + after_ms, outcome, side, 20, 10, price, price - 20, price + 10)


@pytest.fixture
def files(tmp_path):
    """Return a function that writes both files and reads them as a batch."""

    def read(prices, deals):
        (tmp_path / "price-1.csv").write_text(prices)
        (tmp_path / "deals-1.csv").write_text(deals)
        return read_original_batch(
            tmp_path / "price-1.csv", tmp_path / "deals-1.csv", time_limit_s=600
        )

    return read


@pytest.mark.parametrize("quoted", [False, True])
def test_a_line_of_each_file_as_the_original_wrote_it(files, quoted):
    strings = tuple(str(cell) for cell in PRICE) if quoted else PRICE
    batch = files(lines(strings, quoted=quoted), lines(DEAL, quoted=quoted))
    quotes, orders = batch.quotes, batch.orders
    assert quotes.ts_event.tolist() == [1_593_598_800_000_000_000]
    assert [x[0] for x in (quotes.bid, quotes.ask, quotes.mid_open, quotes.high, quotes.low)] == [
        5918.21, 5954.21, 5967.53, 6177.0, 5885.5,
    ]  # fmt: skip
    assert (orders.side[0], orders.take_profit[0], orders.stop_loss[0]) == (1, 10.0, 20.0)
    assert orders.time_limit_ns[0] == 600_000_000_000
    assert batch.transactions.entry_price[0] == 5954.21
    assert batch.recorded_label_N.tolist() == [1.0]


def test_a_deal_enters_at_the_last_tick_at_or_before_it(files):
    ticks = [tick(0), tick(1000), tick(1000, bid=99), tick(2000)]
    batch = files(lines(*ticks), lines(deal(0), deal(1000), deal(1999), deal(2050)))
    assert batch.orders.quote_index.tolist() == [0, 2, 2, 3]


def test_nothing_recorded_says_when_a_deal_ended(files):
    batch = files(lines(tick(0)), lines(deal(0, "loss", "sell")))
    assert batch.orders.side.tolist() == [-1]
    assert batch.recorded_label_N.tolist() == [0.0]
    assert batch.transactions.exit_index.tolist() == [-1]
    assert np.isnan(batch.transactions.pnl).all()


def test_an_absent_side_is_kept_and_flagged(files):
    text = lines(tick(0), tick(1, bid=""), tick(2, ask="null"), tick(3, bid=102.0))
    flags = files(text, lines(deal(0))).quotes.flags
    one_sided, crossed = QuoteFlag.ONE_SIDED, QuoteFlag.CROSSED
    assert flags.tolist() == [0, one_sided, one_sided, crossed]


def test_windows_line_ends_empty_lines_and_a_byte_order_mark_are_passed_over(files):
    prices = "\ufeff" + lines(tick(0), tick(1)).replace("\n", "\r\n\r\n")
    assert len(files(prices, lines(deal(0))).quotes) == 2


GOOD_PRICES, GOOD_DEALS = lines(tick(0), tick(1000)), lines(deal(0), deal(1000))


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ("", r"price-1.csv: cannot be read .Empty CSV file"),
        (lines(tick(0), tick(1)[:-1]), r"price-1.csv: line 2: has 10 cells, expected 11: timestamp,BID"),
        (lines(tick(0)) + "\n" + lines((*tick(1), 1)), r"price-1.csv: line 3: has 12 cells"),
        (lines(tick(0), tick(1, bid="x")), r"price-1.csv: line 2: BID is 'x', expected a number"),
        (lines(tick(0)) + "\n" + lines(tick(1, bid="inf")), r"line 3: BID is 'inf', expected a finite"),
        (lines(tick(0, ask=-1)), r"line 1: OFFER is '-1', expected a number above 0"),
        (lines(tick(0), ("now", *tick(0)[1:])), r"price-1.csv: line 2: timestamp is 'now', expected a whole"),
        (lines(tick(1000), tick(0)), r"line 2: timestamp is 1593598800000, below 1593598801000 of line 1"),
        (lines((*tick(0)[:3], "", *tick(0)[4:])), r"line 1: MID_OPEN is '', expected a value beside BID"),
    ],
)  # fmt: skip
def test_a_bad_price_file_is_refused_with_its_line(files, prices, message):
    with pytest.raises(DataError, match=message) as caught:
        files(prices, GOOD_DEALS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("deals", "message"),
    [
        (lines(deal(0), deal(1)[:-1]), r"deals-1.csv: line 2: has 7 cells, expected 8: timestamp,loss_or_"),
        (lines(deal(0), deal(1, "won")), r"line 2: loss_or_profit is 'won', expected loss or profit"),
        (lines(deal(0, side="hold")), r"line 1: type is 'hold', expected buy or sell"),
        (lines((*deal(0)[:3], 0, *deal(0)[4:])), r"line 1: stop is '0', expected a number above 0"),
        (lines((*deal(0)[:5], "", 1, 2)), r"line 1: price is '', expected a value"),
        (lines(deal(1000), deal(0)), r"line 2: timestamp is .* below .* of line 1: sort the file"),
        (lines(deal(-1)), r"line 1: timestamp is '1593598799999', expected a tick of price-1.csv"),
        (lines(deal(0), deal(62_000)), r"line 2: .* do not belong together"),
    ],
)  # fmt: skip
def test_a_bad_deals_file_is_refused_with_its_line(files, deals, message):
    with pytest.raises(DataError, match=message) as caught:
        files(GOOD_PRICES, deals)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing.csv: cannot be read"):
        read_original_prices(tmp_path / "nothing.csv")


def test_pieces_of_a_file_are_the_file(files, monkeypatch):
    ticks = lines(*(tick(1000 * k, bid=100 + k % 7) for k in range(300)))
    deals = lines(*(deal(1000 * k, ("loss", "profit")[k % 2]) for k in range(300)))
    whole = files(ticks, deals)
    monkeypatch.setattr(csv_columns, "BLOCK_BYTES", 700)
    pieces = files(ticks, deals)
    assert pieces.order_id.tolist() == list(range(300))
    for name in ("quotes", "orders", "transactions"):
        one, other = getattr(whole, name), getattr(pieces, name)
        for field in fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    np.testing.assert_array_equal(whole.recorded_label_N, pieces.recorded_label_N)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (deal(0), r"line 201: timestamp is 1593598800000, below 1593598999000 of line 200: sort"),
        (deal(200_000, side="hold"), r"line 201: type is 'hold', expected buy or sell"),
        (deal(200_000)[:-1], r"line 201: has 7 cells, expected 8"),
    ],
)
def test_a_bad_line_far_into_a_file_is_named(files, monkeypatch, row, message):
    monkeypatch.setattr(csv_columns, "BLOCK_BYTES", 700)
    ticks = lines(*(tick(1000 * k) for k in range(201)))
    good = [deal(1000 * k) for k in range(200)]
    with pytest.raises(DataError, match=message):
        files(ticks, lines(*good, row))


def test_a_step_back_is_seen_wherever_a_piece_ends(files, monkeypatch):
    monkeypatch.setattr(csv_columns, "BLOCK_BYTES", 700)  # about fifteen lines
    ticks = lines(*(tick(1000 * k) for k in range(60)))
    for n in range(20, 40):
        deals = [deal(1000 * k) for k in range(n)]
        with pytest.raises(DataError, match=f"line {n + 2}: .* of line {n + 1}: sort"):
            files(ticks, "\n" + lines(*deals, deal(0)))
