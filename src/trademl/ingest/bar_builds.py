"""Bars built from a recording's ticks, and the file that they are written to.

Shape letters: P ticks, M bars.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.ingest.calendars import session_times
from trademl.ingest.sessions import session_spans
from trademl.ingest.sources import FeedConfig, quotes_path, read_quotes
from trademl.ingest.table_file import numbers_of, read_table
from trademl.market.bar_clocks import BarClock, Clock, TickBars, check_clock
from trademl.market.bars import Bars
from trademl.market.quotes import Quotes
from trademl.store.artifacts import storage_errors, write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

SIZES = ("volume", "size", "quantity", "qty")
SUFFIXES = (".parquet", ".csv", ".npz")


@dataclass(frozen=True, slots=True)
class BuiltBars:
    """Bars of bids with their spread, and how each was filled.

    Parameters
    ----------
    bars : Bars
        A bar's spread is the wider of those of its first and last tick.
    ticks : TickBars
        The same bars as the clock made them: volume, ticks, first and last of them.
    """

    bars: Bars
    ticks: TickBars

    def __len__(self) -> int:
        return len(self.bars)


def build_bars(
    feed: FeedConfig,
    by: Clock,
    size: float,
    *,
    quotes: Quotes | None = None,
    out: Path | None = None,
) -> BuiltBars:
    """Build bars of a recording's ticks.

    Parameters
    ----------
    feed : FeedConfig
        The file, and the sessions that no bar spans: those of ``calendar``, else days from
        ``session_open`` in ``timezone``.
    by : {"time", "tick", "volume", "dollar"}
        What fills a bar; see `trademl.market.bar_clocks.BarClock`.
    size : float
        Seconds, ticks, units, or units times bid.
    quotes : Quotes, optional
        A recording of the tick store, in place of the feed's file; it has no sizes of trades.
    out : Path, optional
        A ``.parquet``, ``.csv`` or ``.npz`` file to write.

    Raises
    ------
    ConfigError
        If the clock or its size cannot be.
    DataError
        If the recording cannot be used, has no sizes for bars of volume or money, or fills no bar.

    Notes
    -----
    Causal: a bar is known at its ``ts_close``. Flagged quotes are in no bar.
    """
    check_clock(by, size)
    if out is not None and out.suffix not in SUFFIXES:
        raise DataError(f"{out}: expected a name that ends in {', '.join(SUFFIXES)}")
    if quotes is None:
        quotes, sizes = read_quotes(feed), read_sizes(feed)
    else:
        sizes = None
    built = bars_of_quotes(quotes, sizes, by, size, sessions_of(feed, quotes.ts_event))
    if out is not None:
        write_bars(out, built)
    return built


def bars_of_quotes(
    quotes: Quotes,
    sizes: NDArray[np.float64] | None,
    by: Clock,
    size: float,
    sessions: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> BuiltBars:
    """Return the bars of quotes; arguments and errors as `build_bars`."""
    clock = BarClock(by, size, *sessions)
    ticks = clock.add(quotes.ts_event, quotes.bid, sizes, quotes.is_executable)
    if not len(ticks):
        raise DataError(
            f"{int(quotes.is_executable.sum())} ticks fill no bar by {by} of {size:g}: choose a "
            "smaller --size, or check the sessions"
        )
    spread = np.maximum(quotes.spread[ticks.first], quotes.spread[ticks.last])
    prices = (ticks.open, ticks.high, ticks.low, ticks.close)
    return BuiltBars(Bars(ticks.ts_open, ticks.ts_close, *prices, spread), ticks)


def sessions_of(
    feed: FeedConfig, ts_event: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return opens and closes of a feed's sessions, UTC nanoseconds."""
    if feed.calendar:
        return session_times(feed.calendar, int(ts_event[0]), int(ts_event[-1]))
    return session_spans(ts_event, timezone=feed.timezone or "UTC", session_open=feed.session_open)


def read_sizes(feed: FeedConfig) -> NDArray[np.float64] | None:
    """Return the size of each trade of a feed's file, shape (P,); None where it has none.

    Sizes at the touch are offers, not trades.
    """
    path = quotes_path(feed)
    table = read_table(path)
    columns = {name.lower(): name for name in table.column_names}
    if (name := next((n for n in SIZES if n in columns), None)) is None:
        return None
    return numbers_of(path, table, columns[name])


def write_bars(path: Path, built: BuiltBars) -> None:
    """Write bars so that `trademl.ingest.bar_files.read_bars` reads them again.

    Raises
    ------
    StoreError
        If the disk is full or not writable.
    """
    content = io.BytesIO()
    if path.suffix == ".npz":
        names: dict[str, Any] = {"ts_open": built.bars.ts_open, **_columns(built)}
        np.savez_compressed(content, **names)
    else:
        table = _table(built)
        if path.suffix == ".csv":
            import pyarrow.csv as csv

            csv.write_csv(table, content)
        else:
            import pyarrow.parquet as pq

            pq.write_table(table, content, compression="zstd")
    with storage_errors(path):
        write_atomically(path, content.getvalue())


def _columns(built: BuiltBars) -> dict[str, NDArray[Any]]:
    bars, ticks = built.bars, asdict(built.ticks)
    bids = {f"bid_{name}": getattr(bars, name) for name in ("open", "high", "low", "close")}
    asks = {f"ask_{name}": getattr(bars, name) + bars.spread for name in ("open", "close")}
    filled = {name: ticks[name] for name in ("volume", "n_ticks", "first", "last")}
    return {"ts_close": bars.ts_close, **bids, **asks, **filled}


def _table(built: BuiltBars) -> pa.Table:
    import pyarrow as pa

    columns = _columns(built)
    time = pa.array(built.bars.ts_open).cast(pa.timestamp("ns", "UTC"))
    volume = pa.array(columns.pop("volume"), from_pandas=True)
    return pa.table({"time": time, **columns, "volume": volume})
