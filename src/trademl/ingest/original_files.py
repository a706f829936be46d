"""The header-less price and deal files of the original demo, read as they are.

``price-<ms>.csv`` holds every tick with the first, highest and lowest mid that the venue sent;
``deals-<ms>.csv`` the mock orders and whether each ended at its limit or its stop. Neither says
when a deal ended. Shape letters: P quotes, N orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trademl.ingest.batch import Batch, joined, whole_batch
from trademl.ingest.csv_columns import CsvColumns, LastOf, read_blocks
from trademl.market.orders import ExitReason, Orders, Side, Transactions
from trademl.market.quotes import NS_PER_S, Quotes, flag_quotes

PRICE_COLUMNS = (
    "timestamp",
    "BID",
    "OFFER",
    "MID_OPEN",
    "CHANGE",
    "CHANGE_PCT",
    "HIGH",
    "LOW",
    "UPDATE_TIME",
    "MARKET_STATE",
    "MARKET_DELAY",
)
DEAL_COLUMNS = (
    "timestamp",
    "loss_or_profit",
    "type",
    "stop",
    "limit",
    "price",
    "stop_price",
    "limit_price",
)
NS_PER_MS = 1_000_000
MAX_ENTRY_AGE_S = 60  # a deal was placed on a tick: an older one belongs to other prices


@dataclass(frozen=True)
class OriginalFiles:
    """The original's two files: ticks that are read, and deals that are read when asked for.

    Parameters
    ----------
    quotes : Quotes
        The ticks of ``prices``.
    prices, deals : Path
    time_limit_s : float
        Longest life of a position; the original had none.
    """

    quotes: Quotes
    prices: Path
    deals: Path
    time_limit_s: float

    def blocks(self) -> Iterator[Batch]:
        """Yield the deals some at a time, as `read_original_batch` reads them all.

        Raises
        ------
        DataError
            If a line cannot be used: names file, line and column.
        """
        after, n_before = LastOf(), 0
        for rows in read_blocks(self.deals, DEAL_COLUMNS):
            yield self._batch(rows, n_before, after)
            n_before += len(rows)

    def _batch(self, rows: CsvColumns, n_before: int, after: LastOf) -> Batch:
        quotes = self.quotes
        opened_ms = rows.ordered("timestamp", rows.integers("timestamp"), after=after)
        opened_ns = opened_ms * NS_PER_MS
        quote_index = np.searchsorted(quotes.ts_event, opened_ns, side="right") - 1
        age_ns = opened_ns - quotes.ts_event[quote_index]
        rows.expect(
            (quote_index >= 0) & (age_ns <= MAX_ENTRY_AGE_S * NS_PER_S),
            "timestamp",
            f"a tick of {self.prices.name} in the {MAX_ENTRY_AGE_S} s up to it: these two files "
            "do not belong together",
        )
        orders = Orders(
            quote_index,
            rows.codes("type", {side.name.lower(): side.value for side in Side}),
            rows.positive("limit"),
            rows.positive("stop"),
            np.full(len(rows), round(self.time_limit_s * NS_PER_S), np.int64),
        )
        rows.numbers("stop_price"), rows.numbers("limit_price")  # implied by the distances
        label_N = rows.codes("loss_or_profit", {"loss": 0, "profit": 1}).astype(np.float32)
        entered = entered_without_exit(quote_index, rows.positive("price"))
        return Batch(quotes, orders, entered, n_before + np.arange(len(rows)), label_N)


def open_original_files(prices: Path, deals: Path, *, time_limit_s: float) -> OriginalFiles:
    """Read the original demo's ticks; its deals are read when they are asked for.

    Raises
    ------
    DataError
        As `read_original_prices`.
    """
    return OriginalFiles(read_original_prices(prices), prices, deals, time_limit_s)


def read_original_batch(prices: Path, deals: Path, *, time_limit_s: float) -> Batch:
    """Read the original demo's two files as a batch without exits.

    Parameters
    ----------
    time_limit_s : float
        Longest life of a position; the original had none.

    Returns
    -------
    Batch
        Orders in the file's order, each decided on the last tick at or before its timestamp;
        ``order_id`` counts the lines. The round trips hold the recorded entry and no exit;
        ``recorded_label_N`` is 1 for ``profit`` and 0 for ``loss``.

    Raises
    ------
    DataError
        If a line has another number of cells, a cell cannot be understood, the lines are not in
        order of time, or a deal has no tick: names file and line.
    """
    return whole_batch(open_original_files(prices, deals, time_limit_s=time_limit_s))


def read_original_prices(path: Path) -> Quotes:
    """Read a price file; times are those of receipt, session figures those of the venue.

    An empty BID or OFFER makes a one-sided quote, which is never traded on.

    Raises
    ------
    DataError
        As `read_original_batch`.
    """
    after = LastOf()
    return joined(Quotes, [_ticks(rows, after) for rows in read_blocks(path, PRICE_COLUMNS)])


def _ticks(columns: CsvColumns, after: LastOf) -> Quotes:
    at_ms = columns.ordered("timestamp", columns.integers("timestamp"), after=after)
    bid, ask = (columns.positive(name, is_optional=True) for name in ("BID", "OFFER"))
    mid_open, high, low = (
        _session_figure(columns, name, bid + ask) for name in ("MID_OPEN", "HIGH", "LOW")
    )
    state, delay_s = columns.words("MARKET_STATE"), _delay_s(columns)
    flags = flag_quotes(bid, ask, state)
    return Quotes(at_ms * NS_PER_MS, bid, ask, mid_open, high, low, flags, state, delay_s)


def _delay_s(columns: CsvColumns) -> NDArray[np.float64]:
    delay_s = columns.numbers("MARKET_DELAY", is_optional=True)
    columns.expect(~(delay_s < 0), "MARKET_DELAY", "0 or more")
    return delay_s


def _session_figure(
    columns: CsvColumns, name: str, both_sides: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a figure that may be absent only where the quote is one-sided."""
    figure = columns.positive(name, is_optional=True)
    columns.expect(~np.isnan(figure) | np.isnan(both_sides), name, "a value beside BID and OFFER")
    return figure


def entered_without_exit(
    entry_index: NDArray[np.int64], entry_price: NDArray[np.float64]
) -> Transactions:
    """Return round trips of which only the entry is known."""
    n = len(entry_index)
    absent = np.full(n, np.nan)
    return Transactions(
        entry_index,
        entry_price,
        np.full(n, -1, np.int64),
        absent,
        np.full(n, ExitReason.CENSORED, np.int8),
        absent,
        absent,
    )
