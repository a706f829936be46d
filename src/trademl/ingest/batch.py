"""An export batch on disk: completed orders and the prices around them, as two CSV files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.orders import ExitReason, Orders, Side, Transactions
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.store.artifacts import Artifact

TRANSACTIONS = "transactions.csv"
PRICES = "prices.csv"


@dataclass(frozen=True)
class Batch:
    """Completed orders and their quotes; indices of orders point into ``quotes``.

    ``order_id`` numbers the orders of the whole recording; every array has shape (N,).
    """

    quotes: Quotes
    orders: Orders
    transactions: Transactions
    order_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.order_id)


def write_batch(folder: Path, batch: Batch, *, instrument: str, first_seq: int) -> None:
    """Write a batch as two CSV files with headers; times are UTC nanoseconds.

    Parameters
    ----------
    first_seq : int
        Sequence number, in the recording, of the first quote of ``batch.quotes``.
    """
    import pyarrow as pa
    import pyarrow.csv as csv

    quotes, orders, done = batch.quotes, batch.orders, batch.transactions
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
        "market_state": pa.nulls(len(quotes), pa.string()),
        "market_delay_s": pa.nulls(len(quotes), pa.float64()),
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
        "closed_at": quotes.ts_event[done.exit_index],
        "exit_price": done.exit_price,
        "exit_reason": pa.array([ExitReason(r).name.lower() for r in done.reason]),
        "fees": done.fees,
        "pnl": done.pnl,
        "label": done.label.astype(np.int8),
        "decided_seq": first_seq + orders.quote_index,
        "entry_seq": first_seq + done.entry_index,
        "exit_seq": first_seq + done.exit_index,
    }
    for name, columns in ((PRICES, prices), (TRANSACTIONS, transactions)):
        table = pa.table({n: _nan_as_null(c) for n, c in columns.items()})
        csv.write_csv(table, folder / name)


def read_batch(batch: Artifact) -> Batch:
    """Read a batch back.

    Raises
    ------
    DataError
        If a file is damaged, or an order points outside the prices.
    """
    prices = _read_csv(batch.file(PRICES))
    bid, ask, mid_open, high, low = (
        prices[n].astype(np.float64) for n in ("bid", "ask", "mid_open", "high", "low")
    )
    ts_event, flags = prices["ts_event"].astype(np.int64), prices["flags"].astype(np.uint8)
    quotes = Quotes(ts_event, bid, ask, mid_open, high, low, flags)
    rows = _read_csv(batch.file(TRANSACTIONS))
    first_seq = int(prices["seq"][0])
    index = {n: rows[f"{n}_seq"].astype(np.int64) - first_seq for n in ("decided", "entry", "exit")}
    for name, at in index.items():
        if len(at) and (at.min() < 0 or at.max() >= len(quotes)):
            raise DataError(f"{batch.path}: a {name}_seq lies outside {PRICES}; export it again")
    side = np.array([Side[s.upper()] for s in rows["side"]], np.int8)
    reason = np.array([ExitReason[r.upper()] for r in rows["exit_reason"]], np.int8)
    number = {
        n: rows[n].astype(np.float64)
        for n in ("entry_price", "take_profit", "stop_loss", "exit_price", "fees", "pnl")
    }
    limit_ns = np.round(rows["time_limit_s"].astype(np.float64) * NS_PER_S).astype(np.int64)
    return Batch(
        quotes,
        Orders(index["decided"], side, number["take_profit"], number["stop_loss"], limit_ns),
        Transactions(
            index["entry"],
            number["entry_price"],
            index["exit"],
            number["exit_price"],
            reason,
            number["fees"],
            number["pnl"],
        ),
        rows["id"].astype(np.int64),
    )


def _nan_as_null(column: object) -> object:
    import pyarrow as pa

    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return pa.array(column, from_pandas=True)
    return column


def _read_csv(path: Path) -> dict[str, NDArray[np.generic]]:
    import pyarrow as pa
    import pyarrow.csv as csv

    try:
        table = csv.read_csv(path)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: cannot be read ({reason}): delete its folder and run again"
        ) from error
    return {n: table[n].to_numpy(zero_copy_only=False) for n in table.column_names}
