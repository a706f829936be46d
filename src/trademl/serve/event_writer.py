"""What happens in a server, written to the ledger by a thread, so that no request waits for it.

Events wait in memory up to a bound while the ledger is away; then the oldest are dropped and
counted: the newest say where the server stands.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Self

from trademl.errors import TrademlError

MOST_WAITING = 4096
EventKind = Literal["tier", "model"]

_MOST_AT_ONCE = 256
_CLOSE_S = 5.0  # of the 30 s that a stopping server has
_log = logging.getLogger(__name__)


class Event(NamedTuple):
    """Something that happened, in UTC nanoseconds; see `trademl.ledger.serving_tables`."""

    at_ns: int
    strategy: str
    kind: EventKind
    old: str
    new: str
    reason: str
    facts: dict[str, Any]


Write = Callable[[Sequence[tuple[int, Event]]], None]


class EventWriter:
    """Takes events at once and writes them when it can, in order, each under its number.

    Use it as a context manager: on leaving, what waits is written if the ledger is there.

    Parameters
    ----------
    write : callable
        Writes numbered events; may block, may raise a TrademlError, and then gets them again.
    most : int
        Events that may wait.
    retry_s : float
        Pause after the ledger was away.
    """

    def __init__(self, write: Write, *, most: int = MOST_WAITING, retry_s: float = 1.0) -> None:
        self._write, self._most, self._retry_s = write, most, retry_s
        self._waiting: deque[tuple[int, Event]] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_away = False
        self._last = 0
        self.n_written = self.n_dropped = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_waiting(self) -> int:
        """Events that are not in the ledger yet."""
        return self._last - self.n_written - self.n_dropped

    def put(self, event: Event) -> None:
        """Take an event; it waits for no database."""
        with self._changed:
            self._last += 1
            self._waiting.append((self._last, event))
            self._drop_oldest()
            if self._thread is None:  # not before: a thread does not survive a fork
                self._thread = threading.Thread(
                    target=self._work, name="trademl-events", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def close(self, within_s: float = _CLOSE_S) -> None:
        """Write what waits, unless that takes too long, and end the thread."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(within_s)
        if self.n_waiting:
            _log.warning("%d events are lost: the ledger is away", self.n_waiting)

    def _work(self) -> None:
        while batch := self._next():
            is_last_try = self._closing.is_set()
            try:
                self._write(batch)
            except (TrademlError, OSError) as error:
                self._put_back(batch, error)
                if is_last_try:
                    return
                self._closing.wait(self._retry_s)
            else:
                with self._changed:
                    self.n_written += len(batch)
                    self._is_away = False

    def _next(self) -> list[tuple[int, Event]]:
        """Return what to write next, nothing once the end has come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            n = min(len(self._waiting), _MOST_AT_ONCE)
            return [self._waiting.popleft() for _ in range(n)]

    def _put_back(self, batch: list[tuple[int, Event]], error: Exception) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(batch))
            self._drop_oldest()
            if not self._is_away:
                _log.warning("events are kept until the ledger is back: %s", error)
            self._is_away = True

    def _drop_oldest(self) -> None:
        while len(self._waiting) > self._most:
            self._waiting.popleft()
            self.n_dropped += 1
