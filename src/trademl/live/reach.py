"""Whether a region's servers answer and its market can be reached, looked at from another place."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from trademl.errors import ServeError
from trademl.serve.client import ping

TIMEOUT_S = 1.0


def any_server_answers(urls: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> bool:
    """Return whether one of the servers says that it is healthy."""
    for url in urls:
        try:
            ping(url, timeout_s=timeout_s)
        except ServeError:
            continue
        return True
    return False


def is_reached(address: tuple[str, int], *, timeout_s: float = TIMEOUT_S) -> bool:
    """Return whether something accepts connections at host and port."""
    try:
        with socket.create_connection(address, timeout=timeout_s):
            return True
    except OSError:
        return False
