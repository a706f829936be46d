"""Events of a server as rows of the ledger."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from trademl.errors import StoreError
from trademl.ledger import Ledger
from trademl.ledger.serving_tables import ServingEvent
from trademl.serve.event_writer import Event, Write


def ledger_events(ledger: Ledger, server: str | None = None) -> Write:
    """Return what writes events to a ledger, as those of one server process.

    Parameters
    ----------
    server : str, optional
        Its name; host, process and time of start where it is left out.
    """
    name = server or server_name()

    def write(events: Sequence[tuple[int, Event]]) -> None:
        rows = [ServingEvent(server=name, number=n, **event._asdict()) for n, event in events]
        try:
            ledger.record(*rows)
        except SQLAlchemyError as error:  # a broken connection has errors of its own
            raise StoreError(f"the ledger cannot be written: {error}") from error

    return write


def server_name() -> str:
    """Return a name that no other process has, now or later."""
    return f"{socket.gethostname()[:40]}/{os.getpid()}/{time.time_ns()}"
