"""Quotes of one instrument, as parallel arrays in arrival order.

Shape letter: P quotes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trademl.market.events import Event

NS_PER_S = 1_000_000_000
TICKS_AT_ONCE = 16_384


class QuoteFlag(IntFlag):
    """What is wrong with a quote.

    The first four forbid a fill and stand in `Quotes.flags`. The last two mark a stretch of the
    feed: the price is what the venue sends, and an order fills at it; see `market.health`.
    """

    CROSSED = 1  # bid above ask
    ONE_SIDED = 2  # bid or ask absent
    CLOSED = 4  # the venue says that the market is not open
    DELAYED = 8  # the venue says that it sends the quote late
    FROZEN = 16  # ticks arrive and prices have not moved for long
    GAP = 32  # the first quote after a long silence


NOT_EXECUTABLE = QuoteFlag.CROSSED | QuoteFlag.ONE_SIDED | QuoteFlag.CLOSED | QuoteFlag.DELAYED
TRADEABLE = "TRADEABLE"  # the market state in which orders fill


@dataclass(frozen=True, slots=True)
class Quotes:
    """A recording of one instrument, every array of shape (P,), in arrival order.

    Parameters
    ----------
    ts_event : ndarray of int64
        Time of the quote, UTC nanoseconds, never decreasing; equal times keep file order.
    bid, ask : ndarray of float64
        Prices in quote currency; NaN where a side is absent.
    mid_open, high, low : ndarray of float64
        First, highest and lowest mid of the session up to and including each quote.
    flags : ndarray of uint8
        Bits of `NOT_EXECUTABLE`; 0 means executable.
    market_state : ndarray of object, optional
        The venue's word for each quote, None where it gave none.
    market_delay_s : ndarray of float64, optional
        The delay that the venue declares, NaN where it declares none.
    bid_size, ask_size : ndarray of float64, optional
        Units shown at the touch; nothing fills on a side that shows 0.
    volatility : ndarray of float64, optional
        Volatility of one second as known on each quote: see `market.friction`.
    bar_P3 : ndarray of float64, optional
        Where each quote is the close of a bar: open, high and low of the bar's bids.
    events : tuple of Event
        Splits, dividends and rolls, in order of time, that the prices are adjusted by: see
        `market.adjustments`. Those of the whole recording, also in a slice of it.
    """

    ts_event: NDArray[np.int64]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]
    mid_open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    flags: NDArray[np.uint8]
    market_state: NDArray[np.object_] | None = None
    market_delay_s: NDArray[np.float64] | None = None
    bid_size: NDArray[np.float64] | None = None
    ask_size: NDArray[np.float64] | None = None
    volatility: NDArray[np.float64] | None = None
    bar_P3: NDArray[np.float64] | None = None
    events: tuple[Event, ...] = ()

    def __len__(self) -> int:
        return len(self.ts_event)

    @property
    def mid(self) -> NDArray[np.float64]:
        """Mid price of each quote; NaN where a side is absent."""
        return (self.bid + self.ask) / 2

    @property
    def spread(self) -> NDArray[np.float64]:
        """Ask minus bid; negative where crossed, NaN where one-sided."""
        return self.ask - self.bid

    @property
    def is_executable(self) -> NDArray[np.bool_]:
        """Whether an order may fill on each quote."""
        executable: NDArray[np.bool_] = self.flags == 0
        return executable

    def slice(self, start: int, stop: int) -> Quotes:
        """Return quotes ``start`` to ``stop`` (exclusive) as views."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        cut: dict[str, Any] = {
            n: c[start:stop] for n, c in columns.items() if isinstance(c, np.ndarray)
        }
        return replace(self, **cut)


class QuoteTick(NamedTuple):
    """One quote as it comes; its fields are those of `Quotes`."""

    ts_event: int
    bid: float
    ask: float
    mid_open: float
    high: float
    low: float
    flags: int
    market_delay_s: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None

    def as_quotes(self) -> Quotes:
        """Return it as a recording of one quote."""
        sizes = (self.market_delay_s, self.bid_size, self.ask_size)
        delay_s, bid_size, ask_size = (None if x is None else np.array([x]) for x in sizes)
        bid, ask, mid_open, high, low = np.array(self[1:6])[:, None]
        return Quotes(
            np.array([self.ts_event], np.int64),
            bid,
            ask,
            mid_open,
            high,
            low,
            np.array([self.flags], np.uint8),
            market_delay_s=delay_s,
            bid_size=bid_size,
            ask_size=ask_size,
        )


def ticks_of(quotes: Quotes, start: int = 0) -> Iterator[QuoteTick]:
    """Yield the quotes from ``start`` on, one by one, without a copy of the recording."""
    names = [name for name in QuoteTick._fields if getattr(quotes, name) is not None]
    for begin in range(start, len(quotes), TICKS_AT_ONCE):
        block = quotes.slice(begin, begin + TICKS_AT_ONCE)
        columns = [getattr(block, name).tolist() for name in names]
        for row in zip(*columns, strict=True):
            yield QuoteTick(**dict(zip(names, row, strict=True)))


def flag_quotes(
    bid: NDArray[np.float64],
    ask: NDArray[np.float64],
    market_state: NDArray[np.object_] | None = None,
) -> NDArray[np.uint8]:
    """Return the bits of each quote that its prices and its market's state make.

    A state that is given and is not ``TRADEABLE`` is CLOSED.

    Examples
    --------
    >>> flag_quotes(np.array([1.0, 3.0, np.nan]), np.array([2.0, 2.0, 2.0]))
    array([0, 1, 2], dtype=uint8)
    """
    crossed = (bid > ask) * np.uint8(QuoteFlag.CROSSED)
    one_sided = (np.isnan(bid) | np.isnan(ask)) * np.uint8(QuoteFlag.ONE_SIDED)
    if market_state is None:
        return crossed | one_sided
    is_closed = np.array([word not in (None, TRADEABLE) for word in market_state], bool)
    return crossed | one_sided | is_closed * np.uint8(QuoteFlag.CLOSED)
