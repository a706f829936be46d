"""Quotes of one instrument, as parallel arrays in arrival order.

Shape letter: P quotes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

NS_PER_S = 1_000_000_000


class QuoteFlag(IntFlag):
    """What is wrong with a quote; a quote with any flag is never traded on."""

    CROSSED = 1  # bid above ask
    ONE_SIDED = 2  # bid or ask absent


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
        Bits of `QuoteFlag`; 0 means executable.
    """

    ts_event: NDArray[np.int64]
    bid: NDArray[np.float64]
    ask: NDArray[np.float64]
    mid_open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    flags: NDArray[np.uint8]

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
        return Quotes(*(getattr(self, f.name)[start:stop] for f in fields(self)))


def flag_quotes(bid: NDArray[np.float64], ask: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the `QuoteFlag` bits of each quote.

    Examples
    --------
    >>> flag_quotes(np.array([1.0, 3.0, np.nan]), np.array([2.0, 2.0, 2.0]))
    array([0, 1, 2], dtype=uint8)
    """
    crossed = (bid > ask) * np.uint8(QuoteFlag.CROSSED)
    one_sided = (np.isnan(bid) | np.isnan(ask)) * np.uint8(QuoteFlag.ONE_SIDED)
    return crossed | one_sided
