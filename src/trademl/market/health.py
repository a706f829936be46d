"""Health of a feed: which ticks a trader should not have believed, and which orders met them.

Shape letters: P quotes, N orders.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.market.quotes import NS_PER_S, QuoteFlag, Quotes, QuoteTick

FROZEN, GAP = int(QuoteFlag.FROZEN), int(QuoteFlag.GAP)

MAX_DELAY_S = 0.5  # below the grid of seconds on which features stand

Policy = Literal["flag", "drop"]


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """What counts as a bad stretch of a feed, and what becomes of orders that touch one.

    Parameters
    ----------
    gap_s : float
        Longest silence; the first quote after a longer one is marked.
    frozen_s : float
        Longest time for which bid and ask may stay as they are while ticks arrive; later ones
        with the same prices are marked.
    max_delay_s : float
        Largest delay that the venue may declare for a quote; with more it is never traded on. A
        venue that says 1 for "delayed" and 0 for "real time" is understood as well.
    policy : str
        ``flag``: orders that touch a bad stretch stay in the dataset, marked and counted;
        ``drop``: they are left out and counted.
    """

    gap_s: float = 300.0
    frozen_s: float = 600.0
    max_delay_s: float = MAX_DELAY_S
    policy: Policy = "flag"

    def __post_init__(self) -> None:
        for name in ("gap_s", "frozen_s"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} is {value}, expected more than 0")
        if not self.max_delay_s >= 0:
            raise ValueError(f"max_delay_s is {self.max_delay_s}, expected 0 or more")
        if self.policy not in (known := get_args(Policy)):
            raise ValueError(f"policy is {self.policy!r}, expected {' or '.join(known)}")


def flag_delays(quotes: Quotes, max_delay_s: float) -> Quotes:
    """Return the quotes with `QuoteFlag.DELAYED` where the venue declared a longer delay."""
    if quotes.market_delay_s is None:
        return quotes
    others = quotes.flags & ~np.uint8(QuoteFlag.DELAYED)
    is_delayed = quotes.market_delay_s > max_delay_s
    return replace(quotes, flags=others | is_delayed * np.uint8(QuoteFlag.DELAYED))


def health_marks(quotes: Quotes, config: HealthConfig) -> NDArray[np.uint8]:
    """Return everything that is wrong with each quote, as bits of `QuoteFlag`.

    Returns
    -------
    ndarray of uint8, shape (P,)
        `Quotes.flags`, and FROZEN and GAP, on which an order may still fill.

    Notes
    -----
    Causal: the mark of a quote reads that quote and earlier ones.
    """
    gap_ns, frozen_ns = round(config.gap_s * NS_PER_S), round(config.frozen_s * NS_PER_S)
    marks = _stretch_marks(quotes.ts_event, quotes.bid, quotes.ask, gap_ns, frozen_ns)
    return quotes.flags | marks  # type: ignore[no-any-return]


class LiveHealth:
    """What `health_marks` finds, as the quotes come, and since when the feed is sound."""

    def __init__(self, config: HealthConfig) -> None:
        self._gap_ns = round(config.gap_s * NS_PER_S)
        self._frozen_ns = round(config.frozen_s * NS_PER_S)
        self._before: QuoteTick | None = None
        self._since_ns, self._bad_ns, self._bad = 0, -1, 0

    def add(self, tick: QuoteTick) -> int:
        """Return the marks of the next quote."""
        marks, before, self._before = tick.flags, self._before, tick
        if before is None:
            self._since_ns = tick.ts_event
        else:
            is_gap = tick.ts_event - before.ts_event > self._gap_ns
            marks |= GAP * is_gap
            if is_gap or tick.bid != before.bid or tick.ask != before.ask:
                self._since_ns = tick.ts_event
            elif tick.ts_event - self._since_ns > self._frozen_ns:
                marks |= FROZEN
        if marks:
            self._bad_ns, self._bad = tick.ts_event, marks
        return marks

    def within(self, lookback_ns: int) -> int:
        """Return the newest marks from ``lookback_ns`` before the last quote on; 0 if none."""
        last_ns = self._before.ts_event if self._before else 0
        return self._bad if self._bad_ns >= last_ns - lookback_ns else 0


def marks_between(
    marks_P: NDArray[np.uint8], first_N: NDArray[np.int64], last_N: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the bits that any quote from ``first_N`` to ``last_N``, both included, carries.

    Examples
    --------
    >>> marks_between(np.array([0, 1, 4, 0], np.uint8), np.array([0, 1, 3]), np.array([0, 2, 2]))
    array([0, 5, 0], dtype=uint8)
    """
    found_N = np.zeros(len(first_N), np.uint8)
    if not len(first_N):
        return found_N
    start = int(first_N.min())
    marks_P = marks_P[start : max(int(last_N.max()) + 1, int(first_N.max()))]
    first_N, last_N = first_N - start, last_N - start
    for flag in QuoteFlag:
        n_before = np.concatenate(([0], np.cumsum((marks_P & flag) != 0)))
        touched_N = n_before[np.maximum(last_N + 1, first_N)] > n_before[first_N]
        found_N |= touched_N * np.uint8(flag)
    return found_N


@njit(cache=True, nogil=True)
def _stretch_marks(ts_event, bid, ask, gap_ns, frozen_ns):  # type: ignore[no-untyped-def]
    marks = np.zeros(len(ts_event), np.uint8)
    since = 0  # the quote since which ticks come without a gap and prices are the same
    for k in range(1, len(ts_event)):
        is_gap = ts_event[k] - ts_event[k - 1] > gap_ns
        if is_gap:
            marks[k] = GAP
        if is_gap or bid[k] != bid[k - 1] or ask[k] != ask[k - 1]:
            since = k
        elif ts_event[k] - ts_event[since] > frozen_ns:
            marks[k] = FROZEN
    return marks
