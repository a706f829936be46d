"""Sessions by the time of day, and the first, highest and lowest mid of each so far.

Shape letter: P quotes.
"""

from __future__ import annotations

import re

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import ConfigError

_NS_PER_DAY = 86_400_000_000_000


def session_days(
    ts_event: NDArray[np.int64], *, timezone: str, session_open: str
) -> NDArray[np.int64]:
    """Return the number of the session in which each time lies.

    Parameters
    ----------
    ts_event : ndarray of int64, shape (P,)
        UTC nanoseconds.
    timezone : str
        Name of the zone of ``session_open``, for example ``America/Chicago``.
    session_open : str
        Local ``HH:MM`` at which a session begins.

    Raises
    ------
    ConfigError
        If ``session_open`` or ``timezone`` cannot be understood.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    opens_ns = _time_of_day_ns(session_open)
    try:
        local = pc.local_timestamp(pa.array(ts_event).cast(pa.timestamp("ns", timezone)))
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"timezone {timezone!r} (feed.timezone, --tz) is not known; give a name such as UTC or "
            "America/Chicago"
        ) from error
    days: NDArray[np.int64] = (local.cast(pa.int64()).to_numpy() - opens_ns) // _NS_PER_DAY
    return days


def session_spans(
    ts_event: NDArray[np.int64], *, timezone: str, session_open: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return when each session that holds a time opens, and when the next one would, UTC ns.

    Raises
    ------
    ConfigError
        As `session_days`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    days = np.unique(session_days(ts_event, timezone=timezone, session_open=session_open))
    local_ns = np.stack([days, days + 1]) * _NS_PER_DAY + _time_of_day_ns(session_open)
    opens, closes = (
        pc.assume_timezone(
            pa.array(row).cast(pa.timestamp("ns")),
            timezone,
            ambiguous="latest",
            nonexistent="latest",
        )
        .cast(pa.int64())
        .to_numpy()
        for row in local_ns
    )
    return opens, closes


def _time_of_day_ns(session_open: str) -> int:
    if not (match := re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", session_open)):
        raise ConfigError(f"session_open is {session_open!r}, expected HH:MM, for example 17:00")
    return (int(match[1]) * 60 + int(match[2])) * 60 * 1_000_000_000


def session_extremes(
    ts_event: NDArray[np.int64], mid: NDArray[np.float64], *, timezone: str, session_open: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the session's first, highest and lowest mid up to and including each quote.

    Parameters
    ----------
    mid : ndarray of float64, shape (P,)
        NaN where a quote is flagged: it is passed over.

    Notes
    -----
    Causal: the values at a quote read that quote and earlier ones of its session.
    """
    return _extremes(session_days(ts_event, timezone=timezone, session_open=session_open), mid)  # type: ignore[no-any-return]


@njit(cache=True)
def _extremes(day, mid):  # type: ignore[no-untyped-def]
    n = len(mid)
    mid_open, high, low = np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    first, top, bottom = np.nan, np.nan, np.nan
    for k in range(n):
        if k > 0 and day[k] != day[k - 1]:
            first, top, bottom = np.nan, np.nan, np.nan
        if not np.isnan(mid[k]):
            if np.isnan(first):
                first = top = bottom = mid[k]
            top, bottom = max(top, mid[k]), min(bottom, mid[k])
        mid_open[k], high[k], low[k] = first, top, bottom
    return mid_open, high, low
