"""Connections to one regional server: kept open, one request on each at a time.

Whoever waits may be cancelled at any moment; the connection is then cut, since its answer would
be taken for the next request's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

from trademl.serve.trust import client_context

_MOST_IDLE = 64
_LARGEST_ANSWER = 64 * 2**20


@dataclass
class Response:
    """A server's answer; header names in lower case."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class Upstream:
    """The connections to one server; lives in one event loop.

    Parameters
    ----------
    url : str
        ``http`` or ``https``, host and port.
    token : str
        Sent with every request, where there is one.
    ca_file : str
        Certificates to trust besides the machine's.

    Raises
    ------
    ConfigError
        If the certificates cannot be read.
    """

    def __init__(self, url: str, *, token: str = "", ca_file: str = "") -> None:
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if is_tls else 80)
        self._tls = client_context(ca_file) if is_tls else None
        self._common = f"Host: {parts.netloc.rpartition('@')[2]}\r\n".encode()
        if token:
            self._common += f"Authorization: Bearer {token}\r\n".encode()
        self._idle: deque[_Wire] = deque()
        self._wires: set[_Wire] = set()

    async def ask(
        self, method: str, path: str, headers: Mapping[bytes, bytes], body: bytes = b""
    ) -> Response:
        """Return the answer to a request; it may be sent twice, where a kept connection had died.

        Raises
        ------
        OSError
            If the server cannot be reached, breaks off, or answers no HTTP.
        """
        message = self._message(method, path, headers, body)
        wire = self._kept()
        if wire is not None:
            try:
                return await self._exchange(wire, message)
            except ConnectionError:
                if wire.has_begun:
                    raise
        return await self._exchange(await self._open(), message)

    def drop_idle(self) -> None:
        """Cut the connections that nobody waits on: what is behind them may be gone."""
        while self._idle:
            self._idle.pop().abort()

    def close(self) -> None:
        """Cut every connection; whoever waits on one gets a `ConnectionError`."""
        for wire in tuple(self._wires):
            wire.abort()

    def _message(
        self, method: str, path: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> bytes:
        lines = [f"{method} {path} HTTP/1.1\r\n".encode("latin-1"), self._common]
        lines += [b"%b: %b\r\n" % pair for pair in headers.items()]
        if body or method == "POST":
            lines.append(b"Content-Length: %d\r\n" % len(body))
        return b"".join([*lines, b"\r\n", body])

    async def _exchange(self, wire: _Wire, message: bytes) -> Response:
        try:
            response = await wire.send(message)
        except BaseException:
            wire.abort()
            raise
        if wire.is_open and len(self._idle) < _MOST_IDLE:
            self._idle.append(wire)
        else:
            wire.abort()
        return response

    def _kept(self) -> _Wire | None:
        while self._idle:
            wire = self._idle.pop()  # the newest: it is the least likely to have been closed
            if wire.is_open:
                return wire
        return None

    async def _open(self) -> _Wire:
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(
            lambda: _Wire(self._wires), self._host, self._port, ssl=self._tls
        )
        return wire


class _Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self, wires: set[_Wire]) -> None:
        self._wires = wires
        self._transport: asyncio.Transport
        self._waiting: asyncio.Future[Response] | None = None
        self.is_open = False
        self.has_begun = False

    def send(self, message: bytes) -> asyncio.Future[Response]:
        """Return what will be the answer."""
        self._parser = httptools.HttpResponseParser(self)
        self._response, self._size = Response(), 0
        self._body: list[bytes] = []
        self.has_begun = False
        self._waiting = asyncio.get_running_loop().create_future()
        if self.is_open:
            self._transport.write(message)
        else:
            self._fail("it closed the connection")
        return self._waiting

    def abort(self) -> None:
        self.is_open = False
        self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._wires.add(self)
        self.is_open = True

    def connection_lost(self, _: Exception | None) -> None:
        self.is_open = False
        self._wires.discard(self)
        self._fail("it closed the connection")

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self.abort()  # nobody asked
            return
        self.has_begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("it answers no HTTP")
            self.abort()

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers[name.lower()] = value
        self._check(len(name) + len(value))

    def on_body(self, part: bytes) -> None:
        self._body.append(part)
        self._check(len(part))

    def on_message_complete(self) -> None:
        response = self._response
        response.status = self._parser.get_status_code()
        response.body = b"".join(self._body)
        if response.status < 200:  # a word in between: the answer comes after it
            self._response, self._body = Response(), []
            return
        if not self._parser.should_keep_alive():
            self.is_open = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(response)

    def _check(self, n_bytes: int) -> None:
        self._size += n_bytes
        if self._size > _LARGEST_ANSWER:
            self._fail(f"its answer is larger than {_LARGEST_ANSWER} bytes")
            self.abort()

    def _fail(self, reason: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError(reason))
