"""Bars from ticks by a clock of time, ticks, volume or money, as the ticks come.

A bar never spans a session's end, and is known only at its own: a bar of time when a tick at or
after its end has come, another bar on the tick that fills it, and either one at the session's close
where that comes first. What the recording leaves unfinished is no bar.

Shape letters: P ticks, M bars, S sessions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import ConfigError, DataError
from trademl.market.quotes import NS_PER_S

Clock = Literal["time", "tick", "volume", "dollar"]
TICKS_AT_ONCE = 65_536
_ALWAYS = (np.iinfo(np.int64).min, np.iinfo(np.int64).max)

# Where an unfinished bar keeps its numbers.
_COUNT, _FIRST, _LAST, _OPENED, _ENDS, _SESSION, _NEWEST = range(7)
_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME, _FILLED = range(6)
_TIME, _TICK, _VOLUME_CLOCK, _DOLLAR = range(4)


@dataclass(frozen=True, slots=True)
class TickBars:
    """Finished bars in order of time, every array of shape (M,).

    Parameters
    ----------
    ts_open : ndarray of int64
        UTC nanoseconds: of a bar of time the beginning of its span, else the time of its first
        tick.
    ts_close : ndarray of int64
        When the bar is known: the end of its span, the time of the tick that filled it, or the
        session's close.
    open, high, low, close : ndarray of float64
        First, highest, lowest and last price of its ticks.
    volume : ndarray of float64
        Sum of their sizes; NaN where ticks have none.
    n_ticks : ndarray of int64
        Ticks in it.
    first, last : ndarray of int64
        Numbers of its first and last tick, counted from the first tick that was ever given, the
        doubtful ones included.
    """

    ts_open: NDArray[np.int64]
    ts_close: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    n_ticks: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ts_open)


class BarClock:
    """Bars of one instrument, whatever the blocks in which its ticks come.

    Parameters
    ----------
    by : {"time", "tick", "volume", "dollar"}
        What a bar is filled with.
    size : float
        Seconds, ticks, units or money (price times size) of a bar. A tick belongs whole to the bar
        that it fills: such a bar may hold more than its size, and the next one begins at nothing.
    open_ns, close_ns : ndarray of int64, shape (S,), optional
        Sessions in order, UTC nanoseconds, without overlap; ticks outside of them are in no bar.
        One session without an end where left out.

    Raises
    ------
    ConfigError
        If the clock is unknown or the size is not above 0; ticks and nanoseconds must be whole.
    DataError
        If sessions overlap or are out of order.

    Notes
    -----
    Bars of time are aligned to the epoch, as clocks are. Source of the other clocks: Lopez de Prado
    (2018), "Advances in Financial Machine Learning", section 2.3.
    """

    def __init__(
        self,
        by: Clock,
        size: float,
        open_ns: NDArray[np.int64] | None = None,
        close_ns: NDArray[np.int64] | None = None,
    ) -> None:
        self._kind = check_clock(by, size)
        self._by = by
        self._size = float(size)
        self._width_ns = round(size * NS_PER_S) if by == "time" else 1
        self._opens = np.array(_ALWAYS[:1] if open_ns is None else open_ns, np.int64)
        self._closes = np.array(_ALWAYS[1:] if close_ns is None else close_ns, np.int64)
        _check_sessions(self._opens, self._closes)
        self._n_ticks = 0
        self._whole = np.zeros(7, np.int64)
        self._whole[_NEWEST] = _ALWAYS[0]
        self._real = np.zeros(6)

    def add(
        self,
        ts_event: NDArray[np.int64],
        price: NDArray[np.float64],
        volume: NDArray[np.float64] | None = None,
        is_sound: NDArray[np.bool_] | None = None,
    ) -> TickBars:
        """Take the next ticks, and return the bars that are finished by the last of them.

        Parameters
        ----------
        ts_event : ndarray of int64, shape (P,)
            UTC nanoseconds, never decreasing.
        price, volume : ndarray of float64, shape (P,)
            Of each tick; without volumes there are no bars of volume and money.
        is_sound : ndarray of bool, shape (P,), optional
            False for doubtful ticks (`Quotes.flags` other than 0): their time passes, and they are
            in no bar.

        Raises
        ------
        DataError
            If a time goes backwards, or a sound tick's price is not above 0 or its volume below 0.
        """
        if volume is None and self._by in ("volume", "dollar"):
            raise DataError(
                f"the ticks have no sizes, so there are no bars by {self._by}: build bars by time "
                "or by tick, or give a recording of trades with a column volume"
            )
        n = len(ts_event)
        sound = np.ones(n, np.bool_) if is_sound is None else np.asarray(is_sound, np.bool_)
        sizes = np.full(n, np.nan) if volume is None else np.asarray(volume, np.float64)
        self._check(ts_event, price, sizes, sound, has_sizes=volume is not None)
        found = []
        for begin in range(0, n, TICKS_AT_ONCE):
            part = slice(begin, begin + TICKS_AT_ONCE)
            found.append(self._advance(ts_event[part], price[part], sizes[part], sound[part]))
        return join_bars(found)

    def until(self, now_ns: int) -> TickBars:
        """Return the bar that has ended by a time though no tick has come since, if there is one.

        Raises
        ------
        DataError
            If a tick has come after that time.
        """
        if now_ns < self._whole[_NEWEST]:
            raise DataError(f"a tick at {self._whole[_NEWEST]} has come, after {now_ns}")
        empty = np.full(1, np.nan)
        return self._advance(np.array([now_ns], np.int64), empty, empty, np.zeros(1, np.bool_), 0)

    def _advance(
        self,
        ts_event: NDArray[np.int64],
        price: NDArray[np.float64],
        volume: NDArray[np.float64],
        sound: NDArray[np.bool_],
        counted: int = 1,
    ) -> TickBars:
        room = 2 * len(ts_event)  # a tick may end the bar before it and fill one of its own
        whole, real = np.empty((room, 5), np.int64), np.empty((room, 5))
        n = _walk(
            np.ascontiguousarray(ts_event, np.int64),
            np.ascontiguousarray(price, np.float64),
            np.ascontiguousarray(volume),
            np.ascontiguousarray(sound),
            self._kind,
            self._size,
            self._width_ns,
            self._opens,
            self._closes,
            self._n_ticks,
            self._whole,
            self._real,
            whole,
            real,
        )
        self._n_ticks += counted * len(ts_event)
        times, counts = whole[:n, :2].T.copy(), whole[:n, 2:].T.copy()
        return TickBars(*times, *real[:n].T.copy(), *counts)

    def _check(
        self,
        ts_event: NDArray[np.int64],
        price: NDArray[np.float64],
        volume: NDArray[np.float64],
        sound: NDArray[np.bool_],
        *,
        has_sizes: bool,
    ) -> None:
        is_back = np.diff(ts_event, prepend=self._whole[_NEWEST]) < 0
        if len(ts_event):  # the difference to "never" would overflow
            is_back[0] = ts_event[0] < self._whole[_NEWEST]
        if is_back.any():
            row = int(is_back.argmax())
            raise DataError(
                f"tick {self._n_ticks + row} is at {ts_event[row]}, before the one before it; "
                "expected ticks in order of time"
            )
        bad = sound & ~((price > 0) & np.isfinite(price))
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"tick {self._n_ticks + row} has price {price[row]:g}, expected a finite number "
                "above 0"
            )
        bad = sound & ~((volume >= 0) & np.isfinite(volume)) & has_sizes
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"tick {self._n_ticks + row} has volume {volume[row]:g}, expected a finite number, "
                "0 or more"
            )


def check_clock(by: str, size: float) -> int:
    """Return a clock's number among `Clock`.

    Raises
    ------
    ConfigError
        As `BarClock`.
    """
    if by not in (known := get_args(Clock)):
        raise ConfigError(f"bars are by {by!r}, expected one of {', '.join(known)}")
    if not (0 < size < np.inf):
        raise ConfigError(f"the size of a bar is {size}, expected a finite number above 0")
    if by == "tick" and size != round(size):
        raise ConfigError(f"a bar has {size} ticks, expected a whole number")
    if by == "time" and not 1 <= round(size * NS_PER_S) < 2**62:
        raise ConfigError(f"a bar lasts {size} s, expected from a nanosecond to a century")
    return known.index(by)


def join_bars(parts: list[TickBars]) -> TickBars:
    """Return bars one after the other; none where there are no parts."""
    if not parts:
        whole, real = np.empty(0, np.int64), np.empty(0)
        return TickBars(whole, whole, real, real, real, real, real, whole, whole, whole)
    columns: list[Any] = [
        np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(TickBars)
    ]
    return TickBars(*columns)


def _check_sessions(opens: NDArray[np.int64], closes: NDArray[np.int64]) -> None:
    if len(opens) != len(closes) or not len(opens):
        raise DataError(f"there are {len(opens)} opens and {len(closes)} closes, expected as many")
    is_bad = (opens >= closes) | np.append(False, opens[1:] < closes[:-1])
    if is_bad.any():
        row = int(is_bad.argmax())
        raise DataError(
            f"session {row} is from {opens[row]} to {closes[row]}; expected sessions in order that "
            "do not overlap"
        )


@njit(cache=True, nogil=True)
def _walk(  # type: ignore[no-untyped-def]
    ts_event, price, volume, sound, kind, size, width_ns, opens, closes, n_before,
    whole, real, out_whole, out_real,
):  # fmt: skip
    """Carry the unfinished bar, ``whole`` and ``real``, over ticks; return the bars finished."""
    n = 0
    for k in range(len(ts_event)):
        now = ts_event[k]
        whole[_NEWEST] = now
        if whole[_COUNT] > 0 and now >= whole[_ENDS]:
            n = _finish(whole, real, whole[_ENDS], out_whole, out_real, n)
        if not sound[k]:
            continue
        s = whole[_SESSION]
        while s < len(closes) and now >= closes[s]:
            s += 1
        whole[_SESSION] = s
        if s == len(closes) or now < opens[s]:
            continue
        if whole[_COUNT] == 0:
            _begin(whole, real, now, price[k], n_before + k, kind, width_ns, opens[s], closes[s])
        whole[_COUNT] += 1
        whole[_LAST] = n_before + k
        real[_HIGH] = max(real[_HIGH], price[k])
        real[_LOW] = min(real[_LOW], price[k])
        real[_CLOSE] = price[k]
        real[_VOLUME] += volume[k]
        real[_FILLED] += _amount(kind, price[k], volume[k])
        if kind != _TIME and real[_FILLED] >= size:
            n = _finish(whole, real, now, out_whole, out_real, n)
    return n


@njit(nogil=True, inline="always")
def _amount(kind, price, volume):  # type: ignore[no-untyped-def]
    """Return what a tick adds to a bar, in the clock's unit."""
    if kind == _TICK:
        return 1.0
    if kind == _VOLUME_CLOCK:
        return volume
    if kind == _DOLLAR:
        return price * volume
    return 0.0


@njit(cache=True, nogil=True)
def _begin(whole, real, now, price, tick, kind, width_ns, opens_ns, closes_ns):  # type: ignore[no-untyped-def]
    whole[_FIRST], whole[_OPENED], whole[_ENDS] = tick, now, closes_ns
    if kind == _TIME:
        begins = now // width_ns * width_ns
        whole[_OPENED] = max(begins, opens_ns)
        whole[_ENDS] = min(begins + width_ns, closes_ns)
    real[_OPEN] = real[_HIGH] = real[_LOW] = price
    real[_VOLUME] = real[_FILLED] = 0.0


@njit(cache=True, nogil=True)
def _finish(whole, real, closed_ns, out_whole, out_real, n):  # type: ignore[no-untyped-def]
    out_whole[n, 0], out_whole[n, 1] = whole[_OPENED], closed_ns
    out_whole[n, 2], out_whole[n, 3], out_whole[n, 4] = whole[_COUNT], whole[_FIRST], whole[_LAST]
    out_real[n] = real[:5]
    whole[_COUNT] = 0
    return n + 1
