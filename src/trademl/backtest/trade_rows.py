"""Trades as compare and explain read them: of the ledger, or of a file of paper or live fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trademl.errors import DataError, StoreError
from trademl.ingest.table_file import place, read_table
from trademl.ledger import Ledger, tables

if TYPE_CHECKING:
    import pyarrow as pa

SIDES = {"buy": 1, "long": 1, "sell": -1, "short": -1}
NEEDED = ("side", "opened_at", "entry_price", "closed_at", "exit_price")


@dataclass(frozen=True, slots=True)
class TradeRow:
    """One round trip, whoever made it.

    Parameters
    ----------
    number : int
        Its place among the trades of its side of the comparison.
    side : int
        Value of `Side`.
    size : float
        Units.
    gross : float
        Profit before fees and carry, in quote currency.
    carry : float
        Financing and dividends while held.
    """

    number: int
    order_id: int | None
    side: int
    decided_at_ns: int | None
    opened_at_ns: int
    entry_price: float
    closed_at_ns: int
    exit_price: float
    exit_reason: str
    size: float
    gross: float
    fees: float
    carry: float
    tier: str | None = None
    latency_ms: float | None = None

    @property
    def pnl(self) -> float:
        """Profit after everything."""
        return self.gross - self.fees + self.carry

    @property
    def seen_ns(self) -> int:
        """When it was decided, or else entered."""
        return self.opened_at_ns if self.decided_at_ns is None else self.decided_at_ns


def rows_of_ledger(ledger: Ledger, backtest_id: str) -> list[TradeRow]:
    """Return the trades of a backtest.

    Raises
    ------
    StoreError
        If the ledger has no such backtest.
    """
    if ledger.get(tables.Backtest, backtest_id) is None:
        raise StoreError(f"the ledger has no backtest {backtest_id}: run trademl backtest run")
    return [_of_ledger(row) for row in ledger.rows(tables.Trade, backtest_id=backtest_id)]


def _of_ledger(row: tables.Trade) -> TradeRow:
    carry = row.carry or 0.0
    return TradeRow(
        row.number,
        row.order_id,
        SIDES[row.side],
        row.decided_at_ns,
        row.opened_at_ns,
        row.entry_price,
        row.closed_at_ns,
        row.exit_price,
        row.exit_reason,
        1.0 if row.size is None else row.size,
        row.pnl + row.fees - carry,
        row.fees,
        carry,
        row.tier,
        row.latency_ms,
    )


def rows_of_file(path: Path, *, multiplier: float = 1.0) -> list[TradeRow]:
    """Read round trips from a CSV or Parquet file, in order of their entries.

    Columns: ``side``, ``opened_at``, ``entry_price``, ``closed_at``, ``exit_price``; and, where
    known, ``size``, ``fees``, ``carry``, ``pnl``, ``order_id``, ``decided_at``, ``exit_reason``,
    ``tier``, ``latency_ms``. Times are timestamps with a zone, or integers of UTC nanoseconds,
    whose name may end in ``_ns``.

    Parameters
    ----------
    multiplier : float
        What a point of price is worth per unit, where there is no ``pnl``.

    Raises
    ------
    DataError
        If a column is missing or a cell cannot be used: names file and line.
    """
    table = read_table(path)
    columns = {name.lower().removesuffix("_ns"): name for name in table.column_names}
    if missing := [name for name in NEEDED if name not in columns]:
        raise DataError(
            f"{path}: has no column {missing[0]}; expected {', '.join(NEEDED)}, and where known "
            "size, fees, carry, pnl, order_id, decided_at"
        )
    for name in ("opened_at", "closed_at", "decided_at"):
        if name in columns:
            table = _with_ns(path, table, columns[name])
    rows = [
        _of_file(path, k, {name: row[columns[name]] for name in columns}, multiplier)
        for k, row in enumerate(table.to_pylist())
    ]
    return sorted(rows, key=lambda row: (row.opened_at_ns, row.number))


def _with_ns(path: Path, table: pa.Table, name: str) -> pa.Table:
    """Return the table with a column of times as UTC nanoseconds."""
    import pyarrow as pa

    column = table[name]
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            raise DataError(f"{path}: times in column {name} carry no zone: write them with one")
        column = column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
    elif not pa.types.is_integer(column.type):
        raise DataError(f"{path}: column {name} holds {column.type}, expected times or UTC ns")
    return table.set_column(table.column_names.index(name), name, column)


def _of_file(path: Path, k: int, row: Mapping[str, Any], multiplier: float) -> TradeRow:
    def number(name: str, absent: float | None = None) -> float:
        value = row.get(name)
        value = absent if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise DataError(f"{place(path, k)} has {name} {value!r}, expected a number")
        return float(value)

    def moment(name: str) -> int:
        if not isinstance(value := row.get(name), int):
            raise DataError(f"{place(path, k)} has {name} {value!r}, expected a time")
        return value

    word = str(row["side"]).lower()
    if word not in SIDES:
        raise DataError(f"{place(path, k)} has side {row['side']!r}, expected {' or '.join(SIDES)}")
    if moment("closed_at") < moment("opened_at"):
        raise DataError(f"{place(path, k)} is closed before it is opened")
    side, size = SIDES[word], number("size", 1.0)
    entry, leave = number("entry_price"), number("exit_price")
    fees, carry = number("fees", 0.0), number("carry", 0.0)
    gross = (leave - entry) * side * size * multiplier
    if row.get("pnl") is not None:
        gross = number("pnl") + fees - carry
    decided, order_id, latency = (row.get(n) for n in ("decided_at", "order_id", "latency_ms"))
    return TradeRow(
        k,
        None if order_id is None else int(order_id),
        side,
        None if decided is None else moment("decided_at"),
        moment("opened_at"),
        entry,
        moment("closed_at"),
        leave,
        str(row.get("exit_reason") or ""),
        size,
        gross,
        fees,
        carry,
        row.get("tier"),
        None if latency is None else number("latency_ms"),
    )
