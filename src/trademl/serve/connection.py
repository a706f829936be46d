"""One client's connection: HTTP/1.1 straight on the transport, within limits of size and time.

The parser calls back for each piece of a request. Answers go out in the order in which their
requests ended, whether they are ready at once or later; while one is awaited, nothing more is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple, cast

import httptools

from trademl.serve.access import Access
from trademl.serve.ladder import LONGEST_S
from trademl.serve.messages import ID_HEADERS, Answer, Request, failure, identified
from trademl.serve.settings import ServerConfig
from trademl.serve.turns import Turns
from trademl.serve.wants import ATTRIBUTES, HEADERS

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_CONTENT_TYPES = {
    name: f"Content-Type: {name}\r\n".encode()
    for name in ("application/json", "application/jsonlines", "application/x-recordio-protobuf")
} | {"": b""}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODY_HEADERS = frozenset((b"content-length", b"transfer-encoding"))
_READ_HEADERS = frozenset(
    (
        *(b"accept", b"authorization", b"content-encoding", b"content-type"),
        *(b"expect", b"origin", b"x-trademl-strategy"),
        *(b"x-amzn-sagemaker-target-model", b"x-amzn-sagemaker-target-variant"),
        *(_BODY_HEADERS | HEADERS | ID_HEADERS | {ATTRIBUTES}),
    )
)
_LONGEST_ATTRIBUTES = 1024
_MAY_BE_LATE_S = 5.0
_FIRST_ERROR = 400


@dataclass
class Shared:
    """What the connections of one server share.

    Parameters
    ----------
    on_refused : callable, optional
        Shown requests that are answered before they reach the handler.
    on_error : callable
        Shown every answer that is an error, wherever it came from.
    """

    config: ServerConfig
    handler: Callable[[Request], Answer | asyncio.Future[Answer]]
    access: Access
    turns: Turns
    on_refused: Callable[[Request, Answer], None] | None = None
    on_error: Callable[[Request, Answer], None] = lambda _, __: None
    connections: set[Connection] = field(default_factory=set)
    is_draining: bool = False


class _Framing(NamedTuple):
    """The request that an answer is to, and what the writing of it must know beside."""

    request: Request
    is_last: bool
    is_http_10: bool = False
    lingers: bool = False


class Connection(asyncio.Protocol):
    """Reads requests, writes answers; the server calls `expire` and `close_if_idle`."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._config = shared.config
        self._turns = shared.turns
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._is_over = False  # the last answer is written: whatever still comes is ignored
        self._is_deaf = False  # the last request was read
        self._in_request = False
        self._awaited: deque[tuple[Answer | asyncio.Future[Answer], _Framing]] = deque()
        self._answered = 0
        self._deadline = 0.0
        self._arrived_s = 0.0
        self._reset()

    def _reset(self) -> None:
        self._url = self._query = b""
        self._path = self._method = ""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0  # of the request line and the headers that the parser has named
        self._unread_bytes = 0  # since the last part of a body: head, trailers, chunk extensions
        self._body: list[bytes] = []
        self._body_bytes = 0

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._deadline = self._turns.now() + self._config.idle_timeout_s
        self._shared.connections.add(self)
        if len(self._shared.connections) > self._config.max_connections:
            self._end(failure(503, "too many connections: try again later"))

    def connection_lost(self, _: Exception | None) -> None:
        self._is_over = True
        self._awaited.clear()
        self._shared.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._is_over or self._is_deaf:
            return
        self._arrived_s = self._turns.begin()
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
        if not self._transport.is_closing() and not self._awaited:
            self._transport.resume_reading()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._in_request = True
        self._deadline = self._turns.now() + self._config.read_timeout_s

    def on_url(self, part: bytes) -> None:
        self._url += part
        self._head_bytes += len(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if (key := name.lower()) in _READ_HEADERS:
            self._headers[key] = value

    def on_headers_complete(self) -> None:
        self._check_head(self._head_bytes)
        url, _, self._query = self._url.partition(b"?")
        self._path = url.decode("latin-1")
        self._method = self._parser.get_method().decode()
        refusal = self._shared.access.refusal(self._method, self._path, self._headers)
        if refusal is not None:
            self._end(refusal)
        elif int(self._headers.get(b"content-length", b"0")) > self._config.max_body_bytes:
            self._refuse_body()
        elif len(self._headers.get(ATTRIBUTES, b"")) > _LONGEST_ATTRIBUTES:
            most = _LONGEST_ATTRIBUTES
            self._end(failure(400, f"the custom attributes are too long: at most {most} bytes"))
        elif not self._is_over and self._headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(_CONTINUE)

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes > self._config.max_body_bytes:
            self._refuse_body()
        elif not self._is_over:
            self._body.append(part)

    def on_message_complete(self) -> None:
        if self._is_over or self._is_deaf:
            return
        is_upgrade = self._parser.should_upgrade()
        request = self._request()
        answer: Answer | asyncio.Future[Answer]
        if is_upgrade and not _BODY_HEADERS.isdisjoint(self._headers):
            # the parser takes what follows for another protocol: the body is out of reach
            answer = failure(501, "no upgrade to another protocol: send plain HTTP/1.1")
            self._show_refused(request, answer)
        else:
            answer = self._shared.handler(request)
        is_last = self._shared.is_draining or is_upgrade or not self._parser.should_keep_alive()
        framing = _Framing(request, is_last, self._parser.get_http_version() == "1.0")
        self._answered += 1
        self._in_request = False
        self._is_deaf = is_last
        self._reset()
        if type(answer) is Answer and not self._awaited:
            self._send(answer, framing)
        else:
            self._await(answer, framing)

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
        if not self._in_request and not self._is_over and not self._awaited:
            self._is_over = True
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection; what the client has not read is lost."""
        self._transport.abort()

    # Steps

    def _request(self) -> Request:
        return Request(
            self._method,
            self._path,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
            self._headers,
            self._query.decode("latin-1"),
            self._arrived_s,
        )

    def _check_head(self, n_bytes: int) -> None:
        most = self._config.max_head_bytes
        if n_bytes > most:
            self._end(failure(431, f"the headers are too large: at most {most} bytes"))

    def _refuse_body(self) -> None:
        most = self._config.max_body_bytes
        self._end(failure(413, f"the body is too large: at most {most} bytes, send fewer rows"))

    def _end(self, answer: Answer) -> None:
        """Answer for the last time, then let the client go on sending until it has read it."""
        if self._is_over or self._is_deaf:
            return
        refused = Request(
            self._method, self._path, headers=self._headers, arrived_s=self._arrived_s
        )
        self._show_refused(refused, answer)
        framing = _Framing(refused, is_last=True, lingers=True)
        self._is_deaf = True
        self._in_request = False
        self._body.clear()
        if self._awaited:
            self._awaited.append((answer, framing))
        else:
            self._send(answer, framing)

    def _show_refused(self, request: Request, answer: Answer) -> None:
        if self._shared.on_refused is not None:
            self._shared.on_refused(request, answer)

    def _await(self, answer: Answer | asyncio.Future[Answer], framing: _Framing) -> None:
        if not self._awaited and not self._transport.is_closing():
            self._transport.pause_reading()
        self._awaited.append((answer, framing))
        self._deadline = self._turns.now() + LONGEST_S + _MAY_BE_LATE_S
        if not isinstance(answer, Answer):
            answer.add_done_callback(self._send_ready)

    def _send_ready(self, _: object = None) -> None:
        """Write what is ready, in order; read on once nothing is awaited."""
        while self._awaited:
            answer, framing = self._awaited[0]
            if not isinstance(answer, Answer):
                if not answer.done():
                    return
                answer = answer.result()
            self._awaited.popleft()
            is_last = framing.is_last or (self._shared.is_draining and not self._awaited)
            self._send(answer, framing._replace(is_last=is_last))
        if not self._is_over and not self._transport.is_closing():
            self._transport.resume_reading()

    def _send(self, answer: Answer, framing: _Framing) -> None:
        if answer.status >= _FIRST_ERROR:
            answer = identified(answer, framing.request)
            self._shared.on_error(framing.request, answer)
        if self._is_over or self._transport.is_closing():
            return
        self._transport.write(_bytes_of(answer, framing))
        if framing.lingers:
            self._is_over = True
            self._deadline = self._turns.now() + self._config.linger_s
            if self._transport.can_write_eof():
                self._transport.write_eof()
        elif framing.is_last:
            self._is_over = True
            self._transport.close()
        else:
            self._deadline = self._turns.now() + self._config.idle_timeout_s


def _bytes_of(answer: Answer, framing: _Framing) -> bytes:
    content_type = _CONTENT_TYPES.get(answer.content_type)
    if content_type is None:
        content_type = b"Content-Type: %b\r\n" % answer.content_type.encode()
    lines = [_STATUS_LINES[answer.status], answer.head, content_type]
    if answer.allow:
        lines.append(b"Allow: %b\r\n" % answer.allow.encode())
    if (attributes := framing.request.headers.get(ATTRIBUTES)) is not None:
        lines.append(b"X-Amzn-SageMaker-Custom-Attributes: %b\r\n" % attributes)
    if framing.is_last:
        lines.append(b"Connection: close\r\n")
    elif framing.is_http_10:
        lines.append(b"Connection: keep-alive\r\n")
    lines.append(b"Content-Length: %d\r\n\r\n" % len(answer.body))
    if framing.request.method != "HEAD":
        lines.append(answer.body)
    return b"".join(lines)
