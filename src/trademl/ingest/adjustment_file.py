"""A file of splits, dividends and rolls of one instrument; a batch keeps one beside its prices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trademl.errors import DataError
from trademl.ingest.table_file import numbers_of, place, read_table, times_of
from trademl.market.events import Event

KINDS = ("split", "dividend", "roll_gap")


def read_adjustments(path: Path, timezone: str | None = None) -> list[Event]:
    """Read events from a CSV or Parquet file, in order of time.

    Columns: ``time`` (or ``ts_event``, UTC nanoseconds), from when on prices are those after the
    event, and one or more of ``split`` (new shares for an old one), ``dividend`` (cash for each old
    share) and ``roll_gap`` (price of the new contract minus that of the old one); an empty cell is
    no such event.

    Raises
    ------
    DataError
        If the file cannot be used: names file and line.
    """
    import pyarrow as pa

    table = read_table(path)
    columns = {name.lower(): name for name in table.column_names}
    if not (kinds := [kind for kind in KINDS if kind in columns]):
        raise DataError(f"{path}: has no column {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    kinds = [kind for kind in kinds if not pa.types.is_null(table[columns[kind]].type)]
    ts_event = times_of(path, table, columns, timezone)
    found = {kind: numbers_of(path, table, columns[kind]) for kind in kinds}
    events = []
    for row, ts in enumerate(ts_event.tolist()):
        told = {kind: float(v[row]) for kind, v in found.items() if not np.isnan(v[row])}
        if not told:
            raise DataError(f"{place(path, row)} tells of nothing: fill in {' or '.join(kinds)}")
        try:
            events.append(Event(ts, **told, is_roll="roll_gap" in told))
        except DataError as error:
            raise DataError(f"{place(path, row)}: {error}") from error
    return sorted(events, key=lambda event: event.ts_event)


def write_adjustments(path: Path, events: Sequence[Event]) -> None:
    """Write events so that `read_adjustments` reads the same."""
    import pyarrow as pa
    import pyarrow.csv as csv

    told = {
        "ts_event": pa.array([event.ts_event for event in events], pa.int64()),
        "split": pa.array([event.split for event in events], pa.float64()),
        "dividend": pa.array([event.dividend for event in events], pa.float64()),
        "roll_gap": pa.array(
            [event.roll_gap if event.is_roll else None for event in events], pa.float64()
        ),
    }
    csv.write_csv(pa.table(told), path)
