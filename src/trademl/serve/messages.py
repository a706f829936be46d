"""One request and one answer, whatever carries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson


@dataclass(slots=True)
class Request:
    """A request whose body has arrived whole.

    Parameters
    ----------
    headers : mapping of bytes to bytes
        Those that the server reads, under lower-case names.
    arrived_s : float
        When it can have reached the server at the earliest, on the server's own clock.
    """

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    query: str = ""
    arrived_s: float = 0.0

    def header(self, name: bytes) -> str:
        """Return a header's value, empty where it is absent."""
        return self.headers.get(name, b"").decode("latin-1")


class Answer(NamedTuple):
    """Status, type and body of an answer.

    Parameters
    ----------
    allow : str
        The methods that a path does take.
    head : bytes
        Header lines of its own, each ended by CR LF.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    allow: str = ""
    head: bytes = b""


def failure(status: int, message: str, allow: str = "", head: bytes = b"") -> Answer:
    """Return the answer that tells a client in one line why it gets no other."""
    return Answer(status, orjson.dumps({"error": message}), allow=allow, head=head)
