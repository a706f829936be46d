"""An export batch on disk: completed orders and the prices around them, as two CSV files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from trademl.ingest.adjustment_file import read_adjustments, write_adjustments
from trademl.ingest.csv_columns import CsvColumns, LastOf, read_blocks
from trademl.market.bars import Bars
from trademl.market.orders import ExitReason, Orders, Side, Transactions
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.store.artifacts import Artifact

if TYPE_CHECKING:
    import pyarrow as pa

TRANSACTIONS = "transactions.csv"
PRICES = "prices.csv"
BARS = "bars.parquet"
ADJUSTMENTS = "adjustments.csv"
SIZES = ("bid_size", "ask_size")
ORDERS_AT_ONCE = 1 << 18

Columns = TypeVar("Columns", Quotes, Orders, Transactions)


@dataclass(frozen=True)
class Batch:
    """Completed orders and their quotes; indices of orders point into ``quotes``.

    ``order_id`` numbers the orders of the whole recording; every array has shape (N,).
    ``transactions`` are the round trips as they were recorded. ``recorded_label_N`` holds labels
    that a file records beside them, NaN where it has none; None where they follow from the PnL.
    Orders are settled on ``bars`` where there are any: ``quotes`` then are their closes, one each.
    """

    quotes: Quotes
    orders: Orders
    transactions: Transactions
    order_id: NDArray[np.int64]
    recorded_label_N: NDArray[np.float32] | None = None
    bars: Bars | None = None

    def __len__(self) -> int:
        return len(self.order_id)

    @property
    def recorded_labels(self) -> NDArray[np.float32]:
        """The labels that were recorded; NaN where none was."""
        given_N = self.recorded_label_N
        return self.transactions.label if given_N is None else given_N

    def take(self, rows: slice | NDArray[np.int64]) -> Batch:
        """Return the chosen orders, with all the quotes."""
        label_N = self.recorded_label_N
        return replace(
            self,
            orders=self.orders.take(rows),
            transactions=self.transactions.take(rows),
            order_id=self.order_id[rows],
            recorded_label_N=None if label_N is None else label_N[rows],
        )

    def cut(self, start: int, stop: int) -> Batch:
        """Return the orders on quotes ``start`` to ``stop`` (exclusive), where they all happen."""
        return replace(
            self,
            quotes=self.quotes.slice(start, stop),
            bars=None if self.bars is None else self.bars.slice(start, stop),
            orders=self.orders.shift(-start),
            transactions=self.transactions.shift(-start),
        )

    def blocks(self) -> Iterator[Batch]:
        """Yield the orders some at a time, in order."""
        for start in range(0, max(len(self), 1), ORDERS_AT_ONCE):
            yield self.take(slice(start, start + ORDERS_AT_ONCE))


class OrderStream(Protocol):
    """Quotes of one recording, and orders on them that may be more than memory holds."""

    @property
    def quotes(self) -> Quotes:
        """The recording."""

    def blocks(self) -> Iterator[Batch]:
        """Yield the orders some at a time, in order of decision, each time with all the quotes."""


@dataclass(frozen=True)
class BatchFiles:
    """A batch whose quotes are read, and whose orders are read piece by piece when asked for."""

    quotes: Quotes
    first_seq: int
    transactions: Path
    bars: Bars | None = None

    def blocks(self) -> Iterator[Batch]:
        """Yield the orders some at a time, in order.

        Raises
        ------
        DataError
            If a line cannot be used: names file, line and column.
        """
        after = LastOf()
        for rows in read_blocks(self.transactions):
            yield replace(_batch(rows, self.quotes, self.first_seq, after), bars=self.bars)


def write_batch(folder: Path, batch: Batch, *, instrument: str, first_seq: int) -> None:
    """Write a batch as two CSV files with headers; times are UTC nanoseconds.

    Parameters
    ----------
    first_seq : int
        Sequence number, in the recording, of the first quote of ``batch.quotes``.
    """
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    quotes, orders, done = batch.quotes, batch.orders, batch.transactions
    is_open, label_N = done.exit_index < 0, batch.recorded_labels
    change = quotes.mid - quotes.mid_open
    prices = {
        "seq": first_seq + np.arange(len(quotes)),
        "ts_event": quotes.ts_event,
        "ts_recv": quotes.ts_event,
        "bid": quotes.bid,
        "ask": quotes.ask,
        "mid_open": quotes.mid_open,
        "change": change,
        "change_pct": 100 * change / quotes.mid_open,
        "high": quotes.high,
        "low": quotes.low,
        "market_state": _or_nulls(quotes.market_state, len(quotes), pa.string()),
        "market_delay_s": _or_nulls(quotes.market_delay_s, len(quotes), pa.float64()),
        **_sizes(quotes),
        "flags": quotes.flags,
    }
    transactions = {
        "id": batch.order_id,
        "instrument": pa.array([instrument] * len(batch)),
        "side": pa.array([Side(s).name.lower() for s in orders.side]),
        "opened_at": quotes.ts_event[done.entry_index],
        "entry_price": done.entry_price,
        "take_profit": orders.take_profit,
        "stop_loss": orders.stop_loss,
        "time_limit_s": orders.time_limit_ns / NS_PER_S,
        "closed_at": _or_null(quotes.ts_event[done.exit_index], is_open),
        "exit_price": done.exit_price,
        "exit_reason": pa.array([ExitReason(r).name.lower() for r in done.reason]),
        "fees": done.fees,
        "pnl": done.pnl,
        "label": _or_null(np.nan_to_num(label_N).astype(np.int8), np.isnan(label_N)),
        "decided_seq": first_seq + orders.quote_index,
        "entry_seq": first_seq + done.entry_index,
        "exit_seq": _or_null(first_seq + done.exit_index, is_open),
    }
    for name, columns in ((PRICES, prices), (TRANSACTIONS, transactions)):
        table = pa.table({n: _nan_as_null(c) for n, c in columns.items()})
        csv.write_csv(table, folder / name)
    if quotes.events:
        write_adjustments(folder / ADJUSTMENTS, quotes.events)
    if (bars := batch.bars) is not None:
        columns = {field.name: getattr(bars, field.name) for field in fields(bars)}
        pq.write_table(pa.table(columns), folder / BARS)


def read_batch(batch: Artifact) -> Batch:
    """Read a batch back.

    Raises
    ------
    DataError
        If a file is damaged, or an order points outside the prices.
    """
    return whole_batch(open_batch(batch))


def open_batch(batch: Artifact) -> BatchFiles:
    """Read a batch's quotes; its orders are read when they are asked for.

    Raises
    ------
    DataError
        If the file of prices is damaged.
    """
    found = open_batch_files(batch.file(PRICES), batch.file(TRANSACTIONS))
    if ADJUSTMENTS in batch.manifest["files"]:
        events = tuple(read_adjustments(batch.file(ADJUSTMENTS)))
        found = replace(found, quotes=replace(found.quotes, events=events))
    if BARS in batch.manifest["files"]:
        import pyarrow.parquet as pq

        table = pq.read_table(batch.file(BARS))
        bars = Bars(*(table[f.name].to_numpy() for f in fields(Bars)))
        bar_P3 = np.stack([bars.open, bars.high, bars.low], axis=1)
        found = replace(found, quotes=replace(found.quotes, bar_P3=bar_P3), bars=bars)
    return found


def read_batch_files(prices: Path, transactions: Path) -> Batch:
    """Read a batch from its two files, wherever they lie.

    Raises
    ------
    DataError
        If a file is not as `write_batch` makes it: names file, line and column.
    """
    return whole_batch(open_batch_files(prices, transactions))


def whole_batch(orders: OrderStream) -> Batch:
    """Return the orders of all blocks as one batch."""
    held = list(orders.blocks())
    return Batch(
        orders.quotes,
        joined(Orders, [block.orders for block in held]),
        joined(Transactions, [block.transactions for block in held]),
        np.concatenate([block.order_id for block in held]),
        np.concatenate([block.recorded_labels for block in held]),
        held[0].bars,
    )


def open_batch_files(prices: Path, transactions: Path) -> BatchFiles:
    """Read the quotes of a batch from its two files; its orders are read when they are asked for.

    Raises
    ------
    DataError
        If the file of prices is not as `write_batch` makes it: names file, line and column.
    """
    pieces: list[Quotes] = []
    first_seq, n_quotes, after = 0, 0, LastOf()
    for rows in read_blocks(prices):
        seq = rows.integers("seq")
        first_seq = first_seq if pieces else int(seq[0])
        expected = first_seq + n_quotes + np.arange(len(seq))
        rows.expect(seq == expected, "seq", "one more than on the line before")
        n_quotes += len(seq)
        pieces.append(_quotes(rows, after))
    return BatchFiles(joined_quotes(pieces), first_seq, transactions)


def _batch(rows: CsvColumns, quotes: Quotes, first_seq: int, after: LastOf) -> Batch:
    reason = rows.codes("exit_reason", {r.name.lower(): r.value for r in ExitReason})
    is_open = reason == ExitReason.CENSORED
    decided, entry, leave = (
        _quote_index(rows, f"{name}_seq", first_seq, len(quotes), is_open & (name == "exit"))
        for name in ("decided", "entry", "exit")
    )
    orders = Orders(
        rows.ordered("decided_seq", decided, after=after),
        rows.codes("side", {side.name.lower(): side.value for side in Side}),
        rows.positive("take_profit"),
        rows.positive("stop_loss"),
        np.round(rows.positive("time_limit_s") * NS_PER_S).astype(np.int64),
    )
    names = ("entry_price", "exit_price", "fees", "pnl", "label")
    number = {name: rows.numbers(name, is_optional=True) for name in names}
    rows.expect(~(number["entry_price"] <= 0), "entry_price", "a number above 0")
    for name in names:
        rows.expect(~np.isnan(number[name]) | is_open, name, "a number")
    done = Transactions(
        entry,
        number["entry_price"],
        leave,
        number["exit_price"],
        reason,
        number["fees"],
        number["pnl"],
    )
    label_N = number["label"].astype(np.float32)
    return Batch(quotes, orders, done, rows.integers("id"), label_N)


def _quotes(columns: CsvColumns, after: LastOf) -> Quotes:
    bid, ask, mid_open, high, low = (
        columns.numbers(name, is_optional=True)
        for name in ("bid", "ask", "mid_open", "high", "low")
    )
    ts_event = columns.ordered("ts_event", columns.integers("ts_event"), after=after)
    flags = columns.integers("flags").astype(np.uint8)
    state, delay_s = (
        columns.words("market_state"),
        columns.numbers("market_delay_s", is_optional=True),
    )
    bid_size, ask_size = (
        columns.numbers(name, is_optional=True) if name in columns.table.column_names else None
        for name in SIZES
    )
    return Quotes(
        ts_event, bid, ask, mid_open, high, low, flags, state, delay_s, bid_size, ask_size
    )


def joined_quotes(pieces: list[Quotes]) -> Quotes:
    """Return one recording; what no quote of it says is None."""
    quotes = joined(Quotes, pieces)
    state, delay_s = quotes.market_state, quotes.market_delay_s
    if state is not None and all(word is None for word in state):
        state = None
    if delay_s is not None and np.isnan(delay_s).all():
        delay_s = None
    return replace(quotes, market_state=state, market_delay_s=delay_s)


def joined(kind: type[Columns], pieces: list[Columns]) -> Columns:
    """Return one object of arrays laid end to end, and empty the list, column by column.

    A column that no piece has is None.
    """
    names = [f.name for f in fields(kind) if f.name != "events"]  # of a whole recording
    columns = {name: [getattr(p, name) for p in pieces] for name in names}
    pieces.clear()
    whole: dict[str, Any] = {name: _end_to_end(columns.pop(name)) for name in list(columns)}
    return kind(**whole)


def _end_to_end(column: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    held = [piece for piece in column if piece is not None]
    return np.concatenate(held) if held else None


def _quote_index(
    rows: CsvColumns, name: str, first_seq: int, n_quotes: int, may_be_absent: NDArray[np.bool_]
) -> NDArray[np.int64]:
    index = rows.integers(name, absent=-1)
    index = np.where(index < 0, -1, index - first_seq)
    lies_within = (index >= 0) & (index < n_quotes)
    rows.expect(lies_within | may_be_absent & (index == -1), name, f"the seq of a line of {PRICES}")
    return index


def _sizes(quotes: Quotes) -> dict[str, NDArray[np.float64]]:
    """Return the sizes shown, where the recording shows any."""
    sizes = {name: getattr(quotes, name) for name in SIZES}
    return {name: size for name, size in sizes.items() if size is not None}


def _or_null(value_N: NDArray[Any], is_absent_N: NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    return pa.array(value_N, mask=is_absent_N)


def _or_nulls(column: NDArray[Any] | None, n: int, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(n, kind) if column is None else pa.array(column, kind, from_pandas=True)


def _nan_as_null(column: object) -> object:
    import pyarrow as pa

    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return pa.array(column, from_pandas=True)
    return column
