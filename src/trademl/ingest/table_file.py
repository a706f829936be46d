"""A Parquet or CSV file of one instrument: its rows, its times in UTC ns, its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

TIME = ("ts_event", "time", "timestamp", "datetime")
INSTRUMENT = ("instrument", "symbol", "contract", "ticker")


def place(path: Path, row: int) -> str:
    """Return file and place of a row that counts from 0: the line of a CSV, the row of Parquet."""
    return f"{path}: row {row + 1}" if path.suffix == ".parquet" else f"{path}: line {row + 2}"


def read_table(path: Path) -> pa.Table:
    """Read a file whole.

    Raises
    ------
    DataError
        If there is no such file, or it is no Parquet or CSV, cannot be read or holds no rows.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        elif ".csv" in path.suffixes:
            table = pyarrow.csv.read_csv(path)
        else:
            raise DataError(f"{path}: expected a name that ends in .parquet, .csv or .csv.gz")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: cannot be read ({reason}): it is empty, cut short or of another format; "
            "fetch it again"
        ) from error
    if table.num_rows == 0:
        raise DataError(f"{path}: holds no rows; expected a recording")
    return table


def refuse_many(path: Path, table: pa.Table, columns: dict[str, str]) -> None:
    """Raise DataError if a file holds several instruments."""
    for name in INSTRUMENT:
        if name in columns and (n := len(table[columns[name]].unique())) > 1:
            raise DataError(
                f"{path}: holds {n} instruments in column {name}; expected one: write one file "
                "for each"
            )


def only(table: pa.Table, columns: dict[str, str], instrument: str) -> pa.Table:
    """Return the rows of one instrument; all of them where no column names it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in INSTRUMENT:
        if name in columns:
            is_it = pc.equal(table[columns[name]].cast(pa.string()), instrument)
            if pc.any(is_it).as_py():
                return table.filter(is_it)
    return table


def column_of(path: Path, columns: dict[str, str], names: Sequence[str], hint: str = "") -> str:
    """Return the name in the file of the first of ``names`` that it has, in whatever case."""
    for name in names:
        if name in columns:
            return columns[name]
    raise DataError(
        f"{path}: has no column {' or '.join(names)}; it has {', '.join(columns.values())}{hint}"
    )


def times_of(
    path: Path, table: pa.Table, columns: dict[str, str], timezone: str | None, hint: str = ""
) -> NDArray[np.int64]:
    """Return the times of a file, UTC ns; naive ones are of ``timezone``."""
    import pyarrow as pa

    name = column_of(path, columns, TIME, hint)
    column = table[name]
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"{place(path, row)} has no {name}")
    if name.lower() == "ts_event" and pa.types.is_integer(column.type):
        return np.asarray(column, np.int64)
    if not pa.types.is_timestamp(column.type):
        raise DataError(
            f"{path}: column {name} holds {column.type}, expected timestamps, or UTC "
            "nanoseconds in a column ts_event"
        )
    if column.type.tz is None:
        column = _localise(path, name, column, timezone)
    return np.asarray(column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()), np.int64)


def _localise(path: Path, name: str, column: pa.ChunkedArray, zone: str | None) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if zone is None:
        raise DataError(
            f"{path}: times in column {name} carry no zone: say which with --tz, for example "
            "--tz UTC or --tz America/Chicago"
        )
    try:
        return pc.assume_timezone(column, zone)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path}: times cannot be read in zone {zone!r} (feed.timezone, --tz): {error}"
        ) from error


def numbers_of(path: Path, table: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column of numbers; NaN where a cell is empty."""
    import pyarrow as pa

    column = table[name]
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise DataError(f"{path}: column {name} holds {column.type}, expected numbers")
    return np.asarray(column.cast(pa.float64()), np.float64)
