"""One request and one answer, whatever carries them."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

INFERENCE_ID, REQUEST_ID = b"x-amzn-sagemaker-inference-id", b"x-request-id"
ID_HEADERS = frozenset((INFERENCE_ID, REQUEST_ID))
_SOUND_ID = re.compile(rb"[ -~]{1,64}")  # what SageMaker takes for one
_ids = itertools.count(1)
_process = b"%x-" % (os.getpid() ^ int.from_bytes(os.urandom(4), "big"))


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
    made_id: bytes = b""

    @property
    def id(self) -> bytes:
        """The caller's own id where it is sound, else a new one; the same whenever it is asked."""
        if not self.made_id:
            self.made_id = self.given_id or _process + b"%x" % next(_ids)
        return self.made_id

    @property
    def given_id(self) -> bytes:
        """The id that the caller sent; empty if it sent none, or none of 1 to 64 ASCII signs."""
        given = self.headers.get(INFERENCE_ID) or self.headers.get(REQUEST_ID)
        return given if given and _SOUND_ID.fullmatch(given) else b""

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


def identified(answer: Answer, request: Request) -> Answer:
    """Return an answer that says which request it is to."""
    if b"X-Request-Id: " in answer.head:
        return answer
    return answer._replace(head=b"%bX-Request-Id: %b\r\n" % (answer.head, request.id))
