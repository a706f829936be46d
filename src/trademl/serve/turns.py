"""How busy the event loop is, and how long what it reads has been waiting.

A turn begins with the first bytes that the loop hands over after it looked for new ones, and ends
when it is about to look again. What is read within a turn came at some moment of the turn before,
or while the loop was idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BEHIND_S = 0.1  # hardly a moment of idleness for so long: more than a burst
_HARDLY = 0.05  # share of the time; timers and looking for bytes take some of it
_AT_ONCE_S = 0.0005  # between two turns: the loop did not wait for bytes


class Turns:
    """A clock that the connections of one loop share.

    Parameters
    ----------
    call_soon : callable
        Calls a function once the loop's current turn is over.
    now : callable
        Seconds that only grow.

    Attributes
    ----------
    is_behind : bool
        Whether the loop had something to do nearly all the time lately. A burst makes it late for
        a moment, and is answered. Late for longer, it gets more than it can answer: then whatever
        waits longer comes out no better, and the next waits as long.
    ends_s : float
        When this turn ends if it is as long as the one before, which is how long its requests
        came in. uvloop sends the answers of a turn at its end.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now = now
        self.is_behind = False
        self._call_soon = call_soon
        self._is_open = False
        self._began_s = self._ended_s = self._looked_s = self._window_s = self.ends_s = now()
        self._last_s = self._busy_s = self._idle_s = 0.0

    def begin(self) -> float:
        """Say that bytes arrived; return when they can have come at the earliest."""
        if not self._is_open:
            self._is_open = True
            self._began_s = now = self.now()
            if now - self._ended_s < _AT_ONCE_S:
                self._waited_from_s, self.ends_s = now - self._last_s, now + self._last_s
            else:
                self._waited_from_s = self.ends_s = now
            self._idle_s += now - self._ended_s
            if now - self._window_s >= BEHIND_S:
                self.is_behind = self._idle_s < _HARDLY * (now - self._window_s)
                self._window_s, self._idle_s = now, 0.0
            self._call_soon(self._end)
        return self._waited_from_s

    def _end(self) -> None:
        self._is_open = False
        self._ended_s = self.now()
        self._last_s = self._ended_s - self._began_s
        self._busy_s += self._last_s

    def look(self) -> float:
        """Return the busy share, 0 to 1, since the last look."""
        now = self.now()
        share = min(1.0, self._busy_s / max(now - self._looked_s, 1e-6))
        self._looked_s, self._busy_s = now, 0.0
        return share
