"""Whether a region's servers answer and its market can be reached, looked at from another place."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from trademl.errors import ServeError
from trademl.serve.client import ping

TIMEOUT_S = 1.0


def any_server_answers(
    urls: Sequence[str], *, timeout_s: float = TIMEOUT_S, ca_file: str = ""
) -> bool:
    """Return whether one of the servers says that it is healthy.

    Parameters
    ----------
    ca_file : str
        Certificates (PEM) to trust besides those of the machine.
    """
    for url in urls:
        try:
            ping(url, timeout_s=timeout_s, ca_file=ca_file)
        except ServeError:
            continue
        return True
    return False


def refuse_untrusted(urls: Sequence[str], *, ca_file: str = "") -> None:
    """Refuse servers whose certificates are not trusted: they would look like silent ones.

    Raises
    ------
    ServeError
        For the first of them that is there. Those that are not are passed over.
    """
    for url in urls:
        try:
            ping(url, timeout_s=TIMEOUT_S, ca_file=ca_file)
        except ServeError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise


def is_reached(address: tuple[str, int], *, timeout_s: float = TIMEOUT_S) -> bool:
    """Return whether something accepts connections at host and port."""
    try:
        with socket.create_connection(address, timeout=timeout_s):
            return True
    except OSError:
        return False
