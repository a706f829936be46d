"""A region's turn to trade: stood by for, held on to while it lasts, handed on at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self

from trademl.errors import StoreError
from trademl.live.lease import LeaseHolder
from trademl.live.outbox import Fence

_log = logging.getLogger(__name__)
RENEWALS = 4  # tried in the time that a lease lasts
LOOKS = 5  # taken at a lease in that time by a region that stands by


def stand_by(
    holder: LeaseHolder, stop: Event, *, may_take: Callable[[], bool] = lambda: True
) -> Fence | None:
    """Return once this region has the lease; None if ``stop`` was set before.

    Parameters
    ----------
    may_take : callable
        Whether the region could trade now, for example because its market is reached.
    """
    while not stop.is_set():
        try:
            if may_take() and (fence := holder.acquire()) is not None:
                return fence
        except StoreError as error:  # the ledger may come back
            _log.warning("lease %s: %s", holder.name, error)
        stop.wait(holder.ttl_ms / 1000 / LOOKS)
    return None


class Turn:
    """Renews a lease, in a thread, for as long as a ``with`` block lasts; then lets go of it.

    A ledger that cannot be reached is asked again until the lease ends by this machine's clock;
    `LeaseHolder.fence` then says that it has ended, whatever this thread does.
    """

    def __init__(self, holder: LeaseHolder) -> None:
        self._holder = holder
        self._over = Event()
        self._thread = Thread(target=self._renew, name="trademl-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        try:
            self._holder.release()
        except StoreError as failure:  # it ends by itself
            _log.warning("lease %s: %s", self._holder.name, failure)

    def _renew(self) -> None:
        while not self._over.wait(self._holder.ttl_ms / 1000 / RENEWALS):
            try:
                if self._holder.renew() is None:
                    return
            except StoreError as error:
                _log.warning("lease %s: %s", self._holder.name, error)
