"""Read a recording of quotes or prints from a file, and refuse what cannot be traded on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.ingest.adjustment_file import read_adjustments
from trademl.ingest.calendars import session_times
from trademl.ingest.sessions import session_extremes
from trademl.ingest.table_file import (
    column_of,
    numbers_of,
    place,
    read_table,
    refuse_many,
    times_of,
)
from trademl.ingest.tick_rule import quotes_from_prints
from trademl.market.adjustments import adjust
from trademl.market.quotes import TRADEABLE, QuoteFlag, Quotes, flag_quotes
from trademl.market.sessions import close_outside

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = "sample"
MAX_BAD_SHARE = 0.05
EARLIEST_NS = 315_532_800_000_000_000  # 1980: times in another unit lie before it
_ASK = ("ask", "offer")
_DELAY = ("market_delay_s", "market_delay")
_EXPECTED = "; expected time and bid + ask (or offer), or time + price with --tick-size"


@dataclass(frozen=True, slots=True)
class FeedConfig:
    """Where quotes come from and how to read them.

    Parameters
    ----------
    quotes : str
        A Parquet or CSV file, or ``sample`` for the bundled recording. Columns: ``time`` and
        ``bid`` + ``ask`` (or ``offer``), or ``time`` + ``price`` for trade prints; and, if the
        venue says so, ``bid_size`` and ``ask_size``, ``market_state`` and ``market_delay_s`` (or
        ``market_delay``).
    instrument : str
        Name of what is quoted; the file's name where empty.
    tick_size : float or None
        Smallest price step; needed for prints, whose quotes are derived by the tick rule.
    timezone : str or None
        Zone of naive times, and of ``session_open``; UTC for the latter where none is given.
    session_open : str
        Local time ``HH:MM`` at which a trading session begins.
    calendar : str
        Name of an exchange calendar (XNYS, CMES, 24/5, ...): quotes outside of its sessions are of
        a closed market, and fill nothing. None where empty.
    adjustments : str
        A CSV or Parquet file of splits, dividends and rolls: prices are adjusted by those up to
        their time, and holders are paid. See `trademl.ingest.adjustment_file`. None where empty.
    allow_bad_quotes : bool
        Read a file even if more than 5 % of its quotes are crossed or one-sided.
    """

    quotes: str = SAMPLE
    instrument: str = ""
    tick_size: float | None = None
    timezone: str | None = None
    session_open: str = "00:00"
    calendar: str = ""
    adjustments: str = ""
    allow_bad_quotes: bool = False

    def __post_init__(self) -> None:
        if self.tick_size is not None and not self.tick_size > 0:
            raise ValueError(f"tick_size is {self.tick_size}, expected more than 0")

    @property
    def name(self) -> str:
        """The instrument's name, or the file's."""
        return self.instrument or Path(self.quotes).name.split(".")[0]


def sample_path() -> Path:
    """Return the path of the bundled recording: E-mini S&P 500 prints, 1 to 3 September 2013."""
    return Path(str(resources.files("trademl") / "sample" / "es_prints_20130901_03.parquet"))


def quotes_path(config: FeedConfig) -> Path:
    """Return the file that a feed reads.

    Raises
    ------
    DataError
        If there is no such file.
    """
    path = sample_path() if config.quotes == SAMPLE else Path(config.quotes)
    if not path.is_file():
        raise DataError(f"{path}: is no file; give a Parquet or CSV file of quotes")
    return path


def adjustments_path(config: FeedConfig) -> Path:
    """Return the file of splits, dividends and rolls of a feed that names one.

    Raises
    ------
    DataError
        If there is no such file.
    """
    path = Path(config.adjustments)
    if not path.is_file():
        raise DataError(f"{path}: is no file; give a CSV or Parquet file of splits and dividends")
    return path


def read_quotes(config: FeedConfig) -> Quotes:
    """Read a file of quotes or prints of one instrument.

    Returns
    -------
    Quotes
        In file order, times in UTC ns; crossed and one-sided quotes are kept and flagged. Prices
        are adjusted by ``adjustments``, those of the session too.

    Raises
    ------
    DataError
        If a file is damaged or empty, lacks a column, holds bars or several instruments, has
        naive times and no ``timezone``, times that go backwards, prices that are not positive,
        both sides absent, no size on a side, or more than 5 % of its quotes crossed or one-sided.
    """
    path = quotes_path(config)
    table = read_table(path)
    columns = {name.lower(): name for name in table.column_names}
    refuse_many(path, table, columns)
    _refuse_bars(path, columns)
    ts_event = times_of(path, table, columns, config.timezone, _EXPECTED)
    bid, ask = _bid_ask(path, table, columns, config)
    _check_rows(path, ts_event, bid, ask)
    state, delay_s = _market_state(path, table, columns), _market_delay(path, table, columns)
    flags = flag_quotes(bid, ask, state)
    _check_share(path, flags, config)
    later = np.full(len(bid), np.nan)  # what the session says follows from adjusted prices
    bid_size, ask_size = _sizes(path, table, columns)
    quotes = Quotes(
        ts_event, bid, ask, later, later, later, flags, state, delay_s, bid_size, ask_size
    )
    if config.adjustments:
        quotes = adjust(quotes, read_adjustments(adjustments_path(config), config.timezone))
    quotes = _with_session(quotes, config)
    if not config.calendar:
        return quotes
    sessions = session_times(config.calendar, int(ts_event[0]), int(ts_event[-1]))
    return close_outside(quotes, *sessions)


def _with_session(quotes: Quotes, config: FeedConfig) -> Quotes:
    mid = np.where(quotes.flags == 0, quotes.mid, np.nan)
    mid_open, high, low = session_extremes(
        quotes.ts_event, mid, timezone=config.timezone or "UTC", session_open=config.session_open
    )
    return replace(quotes, mid_open=mid_open, high=high, low=low)


def _refuse_bars(path: Path, columns: dict[str, str]) -> None:
    if {"open", "high", "low", "close"} <= set(columns) and "bid" not in columns:
        raise DataError(
            f"{path}: holds bars (open, high, low, close), not quotes; expected bid and ask, or "
            "trade prints: 600 one-second lags and barrier fills need ticks; a strategy trades on "
            "bars with [bars] by = 'file', orders of your own go to trademl features build --prices"
        )


def _bid_ask(
    path: Path, table: pa.Table, columns: dict[str, str], config: FeedConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if "bid" in columns or "price" not in columns:
        bid = numbers_of(path, table, column_of(path, columns, ("bid",), _EXPECTED))
        return bid, numbers_of(path, table, column_of(path, columns, _ASK, _EXPECTED))
    if config.tick_size is None:
        raise DataError(
            f"{path}: holds trade prints; quotes are derived from them by the tick rule, which "
            "needs the smallest price step: give --tick-size, for example --tick-size 0.25"
        )
    prices = numbers_of(path, table, columns["price"])
    if not (prices > 0).all():
        row = int(np.flatnonzero(~(prices > 0))[0])
        raise DataError(f"{place(path, row)} has price {prices[row]}, expected more than 0")
    return quotes_from_prints(prices, config.tick_size)


def _sizes(
    path: Path, table: pa.Table, columns: dict[str, str]
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    if not {"bid_size", "ask_size"} <= set(columns):
        return None, None
    bid_size, ask_size = (numbers_of(path, table, columns[n]) for n in ("bid_size", "ask_size"))
    if not ((bid_size > 0).any() and (ask_size > 0).any()):
        raise DataError(
            f"{path}: a side never shows any size: nothing could be traded; leave out the columns "
            "bid_size and ask_size where sizes are not known"
        )
    return bid_size, ask_size


def _market_state(
    path: Path, table: pa.Table, columns: dict[str, str]
) -> NDArray[np.object_] | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if "market_state" not in columns:
        return None
    column = table[columns["market_state"]]
    if pa.types.is_null(column.type):
        return None
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise DataError(f"{path}: column market_state holds {column.type}, expected words")
    words = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    return np.asarray(words.to_numpy(zero_copy_only=False), object)


def _market_delay(
    path: Path, table: pa.Table, columns: dict[str, str]
) -> NDArray[np.float64] | None:
    import pyarrow as pa

    name = next((n for n in _DELAY if n in columns), None)
    if name is None or pa.types.is_null(table[columns[name]].type):
        return None
    delay_s = numbers_of(path, table, columns[name])
    if (bad := delay_s < 0).any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"{place(path, row)} has {name} {delay_s[row]}, expected 0 or more")
    return delay_s


def _check_rows(
    path: Path, ts_event: NDArray[np.int64], bid: NDArray[np.float64], ask: NDArray[np.float64]
) -> None:
    if ts_event[0] < EARLIEST_NS:
        at = np.datetime64(int(ts_event[0]), "ns")
        raise DataError(
            f"{place(path, 0)} is at {at}, expected a time after 1980: integers in ts_event are "
            "UTC nanoseconds"
        )
    if (back := np.diff(ts_event) < 0).any():
        row = int(np.flatnonzero(back)[0]) + 1
        before, at = np.array(ts_event[row - 1 : row + 1], "datetime64[ns]")
        raise DataError(
            f"{place(path, row)} is at {at}, before the one before it at {before}: sort the file "
            "by time of arrival"
        )
    if (both := np.isnan(bid) & np.isnan(ask)).any():
        row = int(np.flatnonzero(both)[0])
        raise DataError(f"{place(path, row)} has neither bid nor ask; drop such rows")
    for name, price in (("bid", bid), ("ask", ask)):
        if (bad := (price <= 0) | np.isinf(price)).any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{place(path, row)} has {name} {price[row]:g}, expected a finite number above 0"
            )


def _check_share(path: Path, flags: NDArray[np.uint8], config: FeedConfig) -> None:
    if (flags != 0).all():
        raise DataError(
            f"{path}: every quote is crossed, one-sided or of a market that is not "
            f"{TRADEABLE}; nothing could be traded"
        )
    n_bad = int((flags & (QuoteFlag.CROSSED | QuoteFlag.ONE_SIDED) != 0).sum())
    if n_bad > MAX_BAD_SHARE * len(flags) and not config.allow_bad_quotes:
        raise DataError(
            f"{path}: {n_bad} of {len(flags)} quotes ({n_bad / len(flags):.1%}) are crossed or "
            f"one-sided, expected at most {MAX_BAD_SHARE:.0%}: check the columns, or give "
            "--allow-bad-quotes to keep them flagged and untraded"
        )
