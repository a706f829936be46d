"""Signals of a user's own from a file, each decided at its time on the quotes known by then.

Shape letter: S signals.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.late import delayed
from trademl.backtest.signals import Signals
from trademl.backtest.trade_rows import SIDES
from trademl.errors import DataError
from trademl.ingest.table_file import column_of, numbers_of, place, read_table, times_of
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S, Quotes

if TYPE_CHECKING:
    import pyarrow as pa

NEVER_NS = 2**62
KNOWN = ("known_at_ns", "known_at")


def read_signals(
    path: Path, quotes: Quotes, *, timezone: str | None = None
) -> tuple[Quotes, Signals]:
    """Read signals, and return them on the quotes, with a moment for each between two of them.

    Columns of a CSV or Parquet file: ``time`` (or ``ts_event``, UTC nanoseconds) of the decision,
    ``side`` (buy or sell); and where wanted ``take_profit`` and ``stop_loss`` (distances from the
    entry price), ``time_limit_s``, ``size``, ``score``, and ``known_at`` (or ``known_at_ns``): the
    time of the newest thing that the signal was made from. An empty barrier or limit is none.

    Raises
    ------
    DataError
        If the file cannot be used, a signal comes before the one above it, from the future, or from
        a time without quotes: names file and line.
    """
    table = read_table(path)
    columns = {name.lower(): name for name in table.column_names}
    decided_S = times_of(path, table, columns, timezone, "; expected time and side")
    _check_times(path, decided_S, quotes)
    known_S = _known(path, table, columns, timezone)
    _refuse_the_future(path, decided_S, known_S)
    at_S = np.searchsorted(quotes.ts_event, decided_S, side="right") - 1
    n = len(decided_S)
    take_profit, stop_loss = (
        _numbers(path, table, columns, name, np.inf) for name in ("take_profit", "stop_loss")
    )
    orders = Orders(
        at_S,
        _sides(path, table, columns),
        take_profit,
        stop_loss,
        _limits(path, table, columns),
    )
    signals = Signals(
        orders,
        np.arange(n),
        _numbers(path, table, columns, "score", 1.0),
        _numbers(path, table, columns, "size", 1.0),
        known_S,
        np.full(n, -np.inf),  # each is wanted, whatever its score
    )
    return delayed(quotes, signals, decided_S - quotes.ts_event[at_S])


def _check_times(path: Path, decided_S: NDArray[np.int64], quotes: Quotes) -> None:
    if (back := np.diff(decided_S) < 0).any():
        row = int(np.flatnonzero(back)[0]) + 1
        raise DataError(
            f"{place(path, row)} is decided at {_at(decided_S[row])}, before the signal above it "
            f"at {_at(decided_S[row - 1])}: sort signals by time"
        )
    first, last = quotes.ts_event[0], quotes.ts_event[-1]
    if (outside := (decided_S < first) | (decided_S > last)).any():
        row = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{place(path, row)} is decided at {_at(decided_S[row])}, and the quotes last from "
            f"{_at(first)} to {_at(last)}: leave out signals without quotes"
        )


def _refuse_the_future(
    path: Path, decided_S: NDArray[np.int64], known_S: NDArray[np.int64] | None
) -> None:
    if known_S is not None and (late := known_S > decided_S).any():
        row = int(np.flatnonzero(late)[0])
        raise DataError(
            f"{place(path, row)} comes from the future: it is decided at {_at(decided_S[row])} and "
            f"reads what was known at {_at(known_S[row])}"
        )


def _at(ns: int) -> str:
    return f"{np.datetime64(int(ns), 'ns')} UTC"


def _known(
    path: Path, table: pa.Table, columns: dict[str, str], timezone: str | None
) -> NDArray[np.int64] | None:
    if not (found := [name for name in KNOWN if name in columns]):
        return None
    name = "ts_event" if found[0].endswith("_ns") else "time"
    table = table.select([columns[found[0]]]).rename_columns([name])
    return times_of(path, table, {name: name}, timezone)


def _sides(path: Path, table: pa.Table, columns: dict[str, str]) -> NDArray[np.int8]:
    words = table[column_of(path, columns, ("side",))].to_pylist()
    for row, word in enumerate(words):
        if str(word).lower() not in SIDES:
            raise DataError(f"{place(path, row)} has side {word!r}, expected {' or '.join(SIDES)}")
    return np.array([SIDES[str(word).lower()] for word in words], np.int8)


def _numbers(
    path: Path, table: pa.Table, columns: dict[str, str], name: str, absent: float
) -> NDArray[np.float64]:
    import pyarrow as pa

    if name not in columns or pa.types.is_null(table[columns[name]].type):
        return np.full(table.num_rows, absent)
    found = numbers_of(path, table, columns[name])
    if name != "score" and (bad := found <= 0).any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"{place(path, row)} has {name} {found[row]:g}, expected more than 0")
    return np.where(np.isnan(found), absent, found)


def _limits(path: Path, table: pa.Table, columns: dict[str, str]) -> NDArray[np.int64]:
    limit_s = _numbers(path, table, columns, "time_limit_s", np.inf)
    return np.minimum(np.round(limit_s * NS_PER_S), NEVER_NS).astype(np.int64)
