"""A file of OHLC bars and a file of orders on them.

Shape letters: P bars, N orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.ingest.batch import Batch
from trademl.ingest.csv_columns import CsvColumns, LastOf, first_row, has_header, read_blocks
from trademl.ingest.original_files import DEAL_COLUMNS, NS_PER_MS, entered_without_exit
from trademl.ingest.sessions import session_extremes
from trademl.ingest.table_file import numbers_of, only, place, read_table, refuse_many, times_of
from trademl.market.bars import Bars, check_bars
from trademl.market.orders import Orders, Side
from trademl.market.quotes import NS_PER_S, Quotes

if TYPE_CHECKING:
    import pyarrow as pa

_OHLC = ("open", "high", "low", "close")


@dataclass(frozen=True)
class BarFiles:
    """Bars that are read, and orders on them that are read when they are asked for.

    Parameters
    ----------
    quotes : Quotes
        What could be seen of the bars: the close of each, at its end.
    time_limit_s : float
        Longest life of a position where the file of orders names none.
    """

    quotes: Quotes
    bars: Bars
    orders: Path
    time_limit_s: float

    def blocks(self) -> Iterator[Batch]:
        """Yield the orders some at a time, in order.

        Raises
        ------
        DataError
            If a line cannot be used: names file, line and column.
        """
        after, n_before = LastOf(), 0
        names = None if has_header(self.orders) else DEAL_COLUMNS
        for rows in read_blocks(self.orders, names):
            yield self._batch(rows, n_before, after)
            n_before += len(rows)

    def _batch(self, rows: CsvColumns, n_before: int, after: LastOf) -> Batch:
        is_original = rows.table.column_names == list(DEAL_COLUMNS)
        time, scale = ("timestamp", NS_PER_MS) if is_original else ("opened_at", 1)
        at_ns = rows.ordered(time, rows.integers(time), after=after) * scale
        quote_index = np.searchsorted(self.bars.ts_close, at_ns, side="right") - 1
        rows.expect(quote_index >= 0, time, "a time at or after the end of the first bar")
        limit_s = np.full(len(rows), self.time_limit_s)
        if "time_limit_s" in rows.table.column_names:
            limit_s = rows.positive("time_limit_s")
        profit, stop, side = (
            ("limit", "stop", "type") if is_original else ("take_profit", "stop_loss", "side")
        )
        orders = Orders(
            quote_index,
            rows.codes(side, {s.name.lower(): s.value for s in Side}),
            rows.positive(profit),
            rows.positive(stop),
            np.round(limit_s * NS_PER_S).astype(np.int64),
        )
        entered = entered_without_exit(quote_index, np.full(len(rows), np.nan))
        label_N = _recorded(rows, is_original=is_original)
        numbers = n_before + np.arange(len(rows))
        return Batch(self.quotes, orders, entered, numbers, label_N, self.bars)


def open_bar_files(
    bars: Path,
    orders: Path,
    *,
    time_limit_s: float,
    spread: float | None = None,
    timezone: str | None = None,
) -> BarFiles:
    """Read bars; the orders on them are read when they are asked for.

    Parameters
    ----------
    bars : Path
        See `read_bars`.
    orders : Path
        CSV with a header and ``opened_at`` (UTC ns), ``side``, ``take_profit``, ``stop_loss``, and,
        if it says so, ``time_limit_s`` and ``label``; or the original's ``deals-*.csv``. An order
        is decided on the last bar that ended at or before its time.

    Raises
    ------
    DataError
        As `read_bars`.
    """
    found = read_bars(bars, spread=spread, timezone=timezone)
    return BarFiles(closes(found), found, orders, time_limit_s)


def are_bars(path: Path) -> bool:
    """Return whether a file of prices holds bars: Parquet, or CSV whose header says so."""
    if path.suffix == ".parquet":
        return True
    names = {name.strip().lower() for name in first_row(path)}
    return bool({"open", "bid_open"} & names)


def read_bars(
    path: Path,
    *,
    spread: float | None = None,
    timezone: str | None = None,
    instrument: str | None = None,
) -> Bars:
    """Read a Parquet or CSV file of the OHLC bars of one instrument.

    Parameters
    ----------
    path : Path
        ``time`` (or ``timestamp``, ``datetime``, ``ts_event``) is when each bar begins. Prices are
        ``bid_open``, ``bid_high``, ``bid_low``, ``bid_close`` (or ``bid``) and ``ask_open``,
        ``ask_close`` and so on (or ``offer_...``); or ``open``, ``high``, ``low``, ``close`` of
        mids or trades, which need a spread. ``ts_close``, if there is one, is when each ends, UTC
        nanoseconds.
    spread : float, optional
        Ask minus bid of bars that have one price: half of it is taken off for the bid.
    timezone : str, optional
        Zone of naive times.
    instrument : str, optional
        The one to read where a file holds several.

    Returns
    -------
    Bars
        Each lasts as long as the shortest step between two where the file names no end. A bar's
        spread is the widest of its open and its close.

    Raises
    ------
    DataError
        If the file cannot be read, lacks a column, holds several instruments, has prices that are
        not above 0, or bars that contradict themselves or the one before.
    """
    table = read_table(path)
    columns = {name.lower(): name for name in table.column_names}
    if instrument:
        table = only(table, columns, instrument)
    refuse_many(path, table, columns)
    return bars_of(path, table, spread=spread, timezone=timezone)


def bars_of(
    path: Path, table: pa.Table, *, spread: float | None = None, timezone: str | None = None
) -> Bars:
    """Return the rows of one instrument as bars; arguments and errors as `read_bars`."""
    columns = {name.lower(): name for name in table.column_names}
    ts_open = times_of(path, table, columns, timezone)
    has_ends = "ts_close" in columns
    if len(ts_open) < 2 or (steps := np.diff(ts_open)).min() < (not has_ends):
        row = 0 if len(ts_open) < 2 else int((steps <= 0).argmax()) + 1
        raise DataError(
            f"{place(path, row)} does not begin after the one before it; expected two bars or "
            "more, sorted by time"
        )
    if "bid_open" in columns:
        ohlc, spread_P = _bid_and_ask(path, table, columns)
    else:
        ohlc, spread_P = _one_price(path, table, columns, spread)
    open_, high, low, close = ohlc
    ts_close = _ends(path, table, columns["ts_close"]) if has_ends else ts_open + steps.min()
    bars = Bars(ts_open, ts_close, open_, high, low, close, spread_P)
    check_bars(bars)
    return bars


def closes(bars: Bars) -> Quotes:
    """Return the close of each bar as a quote at the bar's end, one for each bar."""
    bid, ask = bars.close, bars.close + bars.spread
    extremes = session_extremes(
        bars.ts_close, (bid + ask) / 2, timezone="UTC", session_open="00:00"
    )
    flags, bar_P3 = (
        np.zeros(len(bars), np.uint8),
        np.stack([bars.open, bars.high, bars.low], axis=1),
    )
    return Quotes(bars.ts_close, bid, ask, *extremes, flags, bar_P3=bar_P3)


Prices = NDArray[np.float64]


def _bid_and_ask(
    path: Path, table: pa.Table, columns: dict[str, str]
) -> tuple[list[Prices], Prices]:
    ask = "ask" if any(name in columns for name in ("ask_open", "ask")) else "offer"
    bid_4P = [_price(path, table, columns, "bid", name) for name in _OHLC]
    ask_open, ask_close = (_price(path, table, columns, ask, name) for name in ("open", "close"))
    return bid_4P, np.maximum(ask_open - bid_4P[0], ask_close - bid_4P[3])


def _one_price(
    path: Path, table: pa.Table, columns: dict[str, str], spread: float | None
) -> tuple[list[Prices], Prices]:
    if spread is None:
        raise DataError(
            f"{path}: has bars of one price, expected bid_open, ..., ask_close; give the spread "
            "with --spread, or 0 if the prices are bids"
        )
    ohlc = [_price(path, table, columns, "", name) - spread / 2 for name in _OHLC]
    return ohlc, np.full(len(ohlc[0]), float(spread))


def _price(path: Path, table: pa.Table, columns: dict[str, str], side: str, name: str) -> Prices:
    wanted = f"{side}_{name}".strip("_")
    if name == "close" and wanted not in columns:
        wanted = side
    if wanted not in columns:
        raise DataError(
            f"{path}: has no column {side}_{name}".removesuffix("_")
            + f"; it has {', '.join(columns.values())}"
        )
    price_P = numbers_of(path, table, columns[wanted])
    if not (good_P := (price_P > 0) & np.isfinite(price_P)).all():
        row = int((~good_P).argmax())
        raise DataError(
            f"{place(path, row)} has {wanted} {price_P[row]:g}, expected a finite number above 0"
        )
    return price_P


def _ends(path: Path, table: pa.Table, name: str) -> NDArray[np.int64]:
    import pyarrow as pa

    if not pa.types.is_integer(table[name].type) or table[name].null_count:
        raise DataError(f"{path}: column {name} holds {table[name].type}, expected UTC nanoseconds")
    return np.asarray(table[name], np.int64)


def _recorded(rows: CsvColumns, *, is_original: bool) -> NDArray[np.float32]:
    if is_original:
        return rows.codes("loss_or_profit", {"loss": 0, "profit": 1}).astype(np.float32)
    if "label" in rows.table.column_names:
        return rows.numbers("label", is_optional=True).astype(np.float32)
    return np.full(len(rows), np.nan, np.float32)
