"""One client's connection: HTTP/1.1 straight on the transport, within limits of size and time.

The parser calls back for each piece of a request. Answers are computed at once, in the order
in which requests end, so that pipelined requests are answered in order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import httptools

from trademl.serve.handler import Answer, Request, failure
from trademl.serve.settings import ServerConfig

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ECHOED = b"x-amzn-sagemaker-custom-attributes"
_BODY_HEADERS = frozenset((b"content-length", b"transfer-encoding"))
_READ_HEADERS = _BODY_HEADERS.union(
    (b"content-type", b"content-encoding", b"accept", b"expect", _ECHOED)
)


@dataclass
class Shared:
    """What the connections of one server share."""

    config: ServerConfig
    handler: Callable[[Request], Answer]
    standing_headers: bytes
    now: Callable[[], float] = time.monotonic
    connections: set[Connection] = field(default_factory=set)
    is_draining: bool = False


class Connection(asyncio.Protocol):
    """Reads requests, writes answers; the server calls `expire` and `close_if_idle`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._config = shared.config
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._is_over = False  # the last answer is written: whatever still comes is ignored
        self._in_request = False
        self._answered = 0
        self._deadline = 0.0
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0  # of the request line and the headers that the parser has named
        self._unread_bytes = 0  # since the last part of a body: head, trailers, chunk extensions
        self._is_head_read = False
        self._body: list[bytes] = []
        self._body_bytes = 0

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._deadline = self._shared.now() + self._config.idle_timeout_s
        self._shared.connections.add(self)
        if len(self._shared.connections) > self._config.max_connections:
            self._end(failure(503, "too many connections: try again later"))

    def connection_lost(self, _: Exception | None) -> None:
        self._is_over = True
        self._shared.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        before = (self._answered, self._body_bytes)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request was answered, as the connection's last
        except httptools.HttpParserError:
            self._end(failure(400, "this is no well-formed HTTP request"))
        is_progress = before != (self._answered, self._body_bytes)
        self._unread_bytes = 0 if is_progress else self._unread_bytes + len(data)
        self._check_head(self._unread_bytes)

    def pause_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()  # who reads no answers may send no requests

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._in_request = True
        self._deadline = self._shared.now() + self._config.read_timeout_s

    def on_url(self, part: bytes) -> None:
        self._url += part
        self._head_bytes += len(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if (key := name.lower()) in _READ_HEADERS:
            self._headers[key] = value

    def on_headers_complete(self) -> None:
        self._is_head_read = True
        self._check_head(self._head_bytes)
        if int(self._headers.get(b"content-length", b"0")) > self._config.max_body_bytes:
            self._refuse_body()
        elif not self._is_over and self._headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(_CONTINUE)

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes > self._config.max_body_bytes:
            self._refuse_body()
        elif not self._is_over:
            self._body.append(part)

    def on_message_complete(self) -> None:
        if self._is_over:
            return
        is_upgrade = self._parser.should_upgrade()
        if is_upgrade and not _BODY_HEADERS.isdisjoint(self._headers):
            # the parser takes what follows for another protocol: the body is out of reach
            answer = failure(501, "no upgrade to another protocol: send plain HTTP/1.1")
        else:
            answer = self._shared.handler(self._request())
        is_last = self._shared.is_draining or is_upgrade or not self._parser.should_keep_alive()
        self._write(answer, is_last=is_last)
        self._answered += 1
        self._in_request = False
        self._reset()
        if is_last:
            self._is_over = True
            self._transport.close()
        else:
            self._deadline = self._shared.now() + self._config.idle_timeout_s

    # What the server calls

    def expire(self, now: float) -> None:
        """End the connection if its time is up."""
        if now < self._deadline:
            return
        if self._in_request and not self._is_over:
            wait_s = self._config.read_timeout_s
            self._end(failure(408, f"the request did not arrive whole within {wait_s:g} s"))
        else:
            self.abort()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is on its way in or its answer on its way out."""
        if not self._in_request and not self._is_over:
            self._is_over = True
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection; what the client has not read is lost."""
        self._transport.abort()

    # Steps

    def _request(self) -> Request:
        text = {name: value.decode("latin-1") for name, value in self._headers.items()}
        return Request(
            method=self._parser.get_method().decode(),
            path=self._url.partition(b"?")[0].decode("latin-1"),
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            content_type=text.get(b"content-type", ""),
            content_encoding=text.get(b"content-encoding", ""),
            accept=text.get(b"accept", ""),
        )

    def _check_head(self, n_bytes: int) -> None:
        most = self._config.max_head_bytes
        if n_bytes > most:
            self._end(failure(431, f"the headers are too large: at most {most} bytes"))

    def _refuse_body(self) -> None:
        most = self._config.max_body_bytes
        self._end(failure(413, f"the body is too large: at most {most} bytes, send fewer rows"))

    def _write(self, answer: Answer, *, is_last: bool) -> None:
        if self._transport.is_closing():
            return
        lines = [_STATUS_LINES[answer.status], self._shared.standing_headers]
        if answer.content_type:
            lines.append(b"Content-Type: %b\r\n" % answer.content_type.encode())
        if answer.allow:
            lines.append(b"Allow: %b\r\n" % answer.allow.encode())
        if (attributes := self._headers.get(_ECHOED)) is not None:
            lines.append(b"X-Amzn-SageMaker-Custom-Attributes: %b\r\n" % attributes)
        if is_last:
            lines.append(b"Connection: close\r\n")
        elif self._parser.get_http_version() == "1.0":
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"Content-Length: %d\r\n\r\n" % len(answer.body))
        if not (self._in_request and self._is_head_read and self._parser.get_method() == b"HEAD"):
            lines.append(answer.body)
        self._transport.write(b"".join(lines))

    def _end(self, answer: Answer) -> None:
        """Answer for the last time, then let the client go on sending until it has read it."""
        if self._is_over:
            return
        self._write(answer, is_last=True)
        self._is_over = True
        self._body.clear()
        self._deadline = self._shared.now() + self._config.linger_s
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()
