"""The address that a server listens on: opened, or refused in one line with advice."""

from __future__ import annotations

import errno
import socket

from trademl.errors import ServeError

BACKLOG = 1024


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; of a name, on its first IPv4 address.

    Raises
    ------
    ServeError
        If the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise refused(host, port, error) from error


def check_free(host: str, port: int) -> None:
    """Return if a server could listen at an address now; raise `ServeError` if not."""
    open_socket(host, port).close()


def refused(host: str, port: int, error: OSError) -> ServeError:
    """Return what to tell who asked for an address that the system refuses."""
    if error.errno == errno.EADDRINUSE:
        advice = "it is in use: stop the other server or choose another port (0: a free one)"
    elif error.errno == errno.EACCES:
        advice = "this user may not: choose a port of 1024 or above"
    else:
        advice = f"{error}: choose an address of this machine"
    return ServeError(f"cannot listen on {host} port {port}, {advice}")


def url_of(host: str, port: int, *, is_https: bool) -> str:
    """Return how a server is called.

    Examples
    --------
    >>> url_of("::1", 8080, is_https=False)
    'http://[::1]:8080'
    """
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if is_https else 'http'}://{host}:{port}"
