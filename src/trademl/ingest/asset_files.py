"""Files of the bars of several instruments, and of their splits and dividends."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from trademl.errors import DataError
from trademl.ingest.bar_files import bars_of
from trademl.ingest.table_file import INSTRUMENT, column_of, place, read_table
from trademl.market.bars import Bars
from trademl.market.quotes import NS_PER_S
from trademl.market.snapshots import Factor


def read_assets(
    path: Path, *, spread_bps: float | None = None, timezone: str | None = None
) -> dict[str, Bars]:
    """Read the bars of every instrument of one file.

    Parameters
    ----------
    path : Path
        Parquet or CSV with a column ``symbol`` (or ``instrument``, ``contract``, ``ticker``) beside
        the columns of `trademl.ingest.bar_files.read_bars`; each instrument's rows in order.
    spread_bps : float, optional
        Spread of bars of one price, in hundredths of a percent of each close; half of it is taken
        off for the bid.
    timezone : str, optional
        Zone of naive times.

    Raises
    ------
    DataError
        As `read_bars`; also if there is no column of instruments, or a row has none.
    """
    import pyarrow.compute as pc

    table = read_table(path)
    columns = {name.lower(): name for name in table.column_names}
    name = column_of(path, columns, INSTRUMENT)
    is_quoted = "bid_open" in columns
    if not is_quoted and spread_bps is None:
        raise DataError(f"{path}: has bars of one price; give their spread (spread_bps)")
    symbols = table[name].to_pylist()
    if not all(symbols):
        row = next(row for row, symbol in enumerate(symbols) if not symbol)
        raise DataError(f"{place(path, row)} has no {name}; expected the instrument of the bar")
    assets = {}
    for symbol in sorted(set(symbols)):
        rows = table.filter(pc.equal(table[name], symbol))
        try:
            bars = bars_of(path, rows, spread=None if is_quoted else 0.0, timezone=timezone)
        except DataError as error:
            raise DataError(f"{error} (of the rows of {symbol} alone)") from error
        assets[str(symbol)] = bars if is_quoted else _with_spread(bars, spread_bps or 0.0)
    return assets


def _with_spread(bars: Bars, spread_bps: float) -> Bars:
    less, spread_P = 1 - spread_bps / 2e4, bars.close * spread_bps / 1e4
    prices = {name: getattr(bars, name) * less for name in ("open", "high", "low", "close")}
    return replace(bars, **prices, spread=spread_P)


def read_factors(folder: Path, timezone: str = "America/New_York") -> dict[str, list[Factor]]:
    """Read Lean's factor files: one ``<symbol>.csv`` an instrument.

    Parameters
    ----------
    folder : Path
        Each line is a date (``20140608``), a price factor and a split factor by which raw prices up
        to and including that date are multiplied.
    timezone : str
        Zone of the dates.

    Returns
    -------
    dict of str to list of Factor
        By symbols in capitals. What happened after a line's date is the step to the next line; a
        price is never changed by a later one.

    Raises
    ------
    DataError
        If there is no such file, or a line is not of this form: names file and line.
    """
    zone = ZoneInfo(timezone)
    if not any(folder.glob("*.csv")):
        raise DataError(f"{folder}: holds no factor file, expected one SYMBOL.csv an instrument")
    return {path.stem.upper(): _factors(path, zone) for path in sorted(folder.glob("*.csv"))}


def _factors(path: Path, zone: ZoneInfo) -> list[Factor]:
    with path.open(newline="", encoding="utf-8") as file:
        lines = [_line(path, n, row) for n, row in enumerate(csv.reader(file), 1) if row]
    found = []
    for (day, before), (_, after) in pairwise(lines):
        ratio = after / before
        if ratio != 1.0:
            begins = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
            found.append(Factor(int(begins.timestamp()) * NS_PER_S, ratio))
    return found


def _line(path: Path, number: int, row: list[str]) -> tuple[datetime, float]:
    try:
        day = datetime.strptime(row[0], "%Y%m%d")  # noqa: DTZ007 - a date, its zone is given
        price, split = float(row[1]), float(row[2])
    except (ValueError, IndexError) as error:
        raise DataError(
            f"{path}: line {number} is {','.join(row)!r}, expected date, price factor and split "
            "factor, for example 20140608,0.95,0.142857"
        ) from error
    if not (price > 0 and split > 0):
        raise DataError(f"{path}: line {number} has a factor that is not above 0")
    return day, price * split


def of_symbols(
    assets: Mapping[str, Bars], factors: Mapping[str, list[Factor]]
) -> dict[str, list[Factor]]:
    """Return the factors of the assets that have any."""
    return {symbol: factors[symbol] for symbol in assets if symbol in factors}
