"""Sessions of an exchange, from the calendars of `exchange_calendars`, as arrays."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from trademl.errors import ConfigError, DataError, require_extra
from trademl.market.quotes import NS_PER_S


def session_times(
    calendar: str, first_ns: int, last_ns: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return opens and closes of the sessions that touch a span, UTC nanoseconds.

    Parameters
    ----------
    calendar : str
        Name of `exchange_calendars`: an exchange's MIC such as XNYS, or CMES, 24/7, 24/5.

    Raises
    ------
    ConfigError
        If no calendar has the name; the message has the closest.
    DataError
        If the calendar does not reach over the span.
    """
    require_extra("calendars")
    import exchange_calendars

    names = exchange_calendars.get_calendar_names()
    if calendar not in names:
        close = difflib.get_close_matches(calendar, names, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ": see exchange_calendars"
        raise ConfigError(f"no exchange calendar is called {calendar!r}{hint}")
    start, end = (datetime.fromtimestamp(ns // NS_PER_S, UTC).date() for ns in (first_ns, last_ns))
    day = timedelta(days=1)
    try:
        found = exchange_calendars.get_calendar(
            calendar, start=str(start - 7 * day), end=str(end + 7 * day)
        )
    except (ValueError, exchange_calendars.errors.CalendarError) as error:
        raise DataError(f"calendar {calendar} does not reach from {start} to {end}") from error
    opens, closes = (
        np.asarray(found.schedule[name].to_numpy("datetime64[ns]"), np.int64)
        for name in ("open", "close")
    )
    return opens, closes
