"""Where a live run's quotes come from, and how fast: a recording or a simulation, at any speed.

A feed is any iterable of `QuoteTick` in order of time; it begins anew each time it is iterated, so
that a run that was cut short can be shown what it saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Event

from trademl.market.quotes import NS_PER_S, Quotes, QuoteTick, ticks_of


def replayed(
    quotes: Quotes,
    *,
    speed: float = 0.0,
    n_at_once: int = 0,
    stop: Event | None = None,
    now_s: Callable[[], float] = time.monotonic,
) -> Iterator[QuoteTick]:
    """Yield quotes, each when it is due, until ``stop`` is set.

    Parameters
    ----------
    speed : float
        Times as fast as they came; 0 as fast as they are taken.
    n_at_once : int
        The first so many quotes are not waited for: they were seen before.
    """
    stop = stop or Event()
    began_s, first_ns = now_s(), 0
    for index, tick in enumerate(ticks_of(quotes)):
        if speed and index >= n_at_once:
            if not first_ns:
                began_s, first_ns = now_s(), tick.ts_event
            due_s = began_s + (tick.ts_event - first_ns) / NS_PER_S / speed
            stop.wait(max(0.0, due_s - now_s()))
        if stop.is_set():
            return
        yield tick
