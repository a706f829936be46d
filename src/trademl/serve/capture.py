"""A sample of requests with their answers, kept as SageMaker's data capture keeps them.

``<endpoint>/<variant>/yyyy/mm/dd/hh/<file>.jsonl`` below the destination, by the hour of the answer
(UTC), one JSON object a line. The event loop only draws and queues; a thread writes. The queue is
bounded: what finds no room is dropped and counted, and the requests know nothing of it.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from trademl.errors import ConfigError, TrademlError
from trademl.serve.messages import Answer, Request
from trademl.serve.request_log import said_in

VERSION = "0"
_TEXT = {
    "text/csv": "CSV",
    "application/json": "JSON",
    "application/jsonlines": "JSON",
}
_LONGEST_FILE_BYTES = 8 * 2**20
_END_S = 2.0  # for what is left when the server stops
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+|^\.+")  # in the name of a folder

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where files of captured requests go; called from one thread."""

    def put(self, key: str, content: bytes) -> None:
        """Keep a file, whole or not at all; the same key again replaces it.

        Raises
        ------
        TrademlError
            If it is not kept; it is tried again.
        """


@dataclass(frozen=True)
class CaptureConfig:
    """What is captured, and where it goes.

    Parameters
    ----------
    destination : str
        A folder, or ``s3://bucket/prefix``.
    percent : float
        Share of the answered requests, above 0, up to 100.
    variant : str
        What the second folder is called.
    flush_s : float
        A file is written at least as often, if there is anything to write.
    buffer_bytes : int
        Most bytes of requests and answers that wait to be written.
    """

    destination: str
    percent: float = 100.0
    variant: str = "AllTraffic"
    flush_s: float = 60.0
    buffer_bytes: int = 64 * 2**20

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ConfigError(f"capture percent is {self.percent:g}: expected above 0, up to 100")
        if not self.variant or _UNSAFE.search(self.variant):
            raise ConfigError(f"variant {self.variant!r}: expected letters, digits, dashes")
        if self.flush_s <= 0 or self.buffer_bytes <= 0:
            raise ConfigError("flush_s and buffer_bytes of a capture: expected more than 0")


@dataclass(frozen=True, slots=True)
class Event:
    """One request with its answer."""

    request: Request
    answer: Answer
    endpoint: str
    at_s: float

    @property
    def n_bytes(self) -> int:
        """What it takes in memory, about."""
        return len(self.request.body) + len(self.answer.body) + 500


class Capture:
    """Keeps a sample of what it is shown; a thread of its own writes.

    Parameters
    ----------
    draw : callable
        Returns a number from 0 to 1, below which the share decides.
    wall_s : callable
        Seconds since 1970.
    """

    def __init__(
        self,
        config: CaptureConfig,
        sink: Sink,
        *,
        draw: Callable[[], float] = random.random,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._sink, self._draw, self._wall_s = config, sink, draw, wall_s
        self._share = config.percent / 100
        self._lock = threading.Condition()
        self._waiting: list[Event] = []
        self._unsent: dict[str, tuple[bytes, int]] = {}  # files that could not be written yet
        self._n_bytes = 0
        self._is_over = False
        self.n_captured = self.n_dropped = self.n_failures = 0
        self._thread = threading.Thread(target=self._work, name="trademl-capture", daemon=True)
        self._thread.start()

    def see(self, request: Request, answer: Answer, strategy: str) -> None:
        """Keep a request that was answered, if it is drawn and there is room."""
        if answer.status != 200 or not strategy or self._draw() >= self._share:
            return
        event = Event(request, answer, strategy, self._wall_s())
        with self._lock:
            if self._n_bytes + event.n_bytes > self._config.buffer_bytes:
                self.n_dropped += 1
                return
            self._n_bytes += event.n_bytes
            self._waiting.append(event)
            if self._n_bytes > _LONGEST_FILE_BYTES and not self._unsent:
                self._lock.notify()

    def close(self) -> None:
        """Write what is left, and wait for it."""
        with self._lock:
            self._is_over = True
            self._lock.notify()
        self._thread.join(_END_S)
        if self._thread.is_alive():
            _log.error("data capture: the destination takes too long; what is left is lost")

    def metrics(self) -> list[str]:
        """Return its counters in Prometheus' text format."""
        found = []
        for name, value, meaning in (
            ("captured", self.n_captured, "Requests written by data capture."),
            ("capture_dropped", self.n_dropped, "Requests that data capture had no room for."),
            ("capture_failures", self.n_failures, "Files that data capture could not write."),
        ):
            found += [
                f"# HELP trademl_{name}_total {meaning}",
                f"# TYPE trademl_{name}_total counter",
                f"trademl_{name}_total {value}",
            ]
        return found

    def _work(self) -> None:
        is_over = False
        while not is_over:
            with self._lock:
                if not self._is_over:
                    self._lock.wait(self._config.flush_s)
                events, self._waiting = self._waiting, []
                is_over = self._is_over
            for key, part in _by_file(events, self._config.variant).items():
                content = b"".join(line_of(event) for event in part)
                n_bytes = sum(event.n_bytes for event in part)
                self._unsent[key] = content, n_bytes
                self.n_captured += len(part)
            self._send()
        if self._unsent:
            _log.error("data capture: %d files were not written, and are lost", len(self._unsent))

    def _send(self) -> None:
        """Write every file that waits; after the first one that fails, the rest wait too."""
        for key in list(self._unsent):
            content, n_bytes = self._unsent[key]
            try:
                self._sink.put(key, content)
            except TrademlError as error:
                self.n_failures += 1
                _log.warning("data capture: %s; it is tried again", error)
                return
            del self._unsent[key]
            with self._lock:
                self._n_bytes -= n_bytes


def _by_file(events: Sequence[Event], variant: str) -> dict[str, list[Event]]:
    """Return events by the key of the file that they go to: one of each endpoint and hour."""
    files: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        hour = _utc(event.at_s).strftime("%Y/%m/%d/%H")
        files.setdefault((event.endpoint, hour), []).append(event)
    return {
        f"{_UNSAFE.sub('-', endpoint)}/{variant}/{hour}/{_file_name(part[0].at_s)}": part
        for (endpoint, hour), part in files.items()
    }


def _file_name(at_s: float) -> str:
    at = _utc(at_s)
    return f"{at:%M-%S}-{at.microsecond // 1000:03}-{uuid.uuid4()}.jsonl"


def line_of(event: Event) -> bytes:
    """Return the line of an event, as SageMaker's data capture writes it."""
    request, answer = event.request, event.answer
    said = {"request-id": request.id.decode("ascii")} | said_in(answer)
    meta: dict[str, Any] = {
        "eventId": str(uuid.uuid4()),
        "customAttributes": [f"trademl-{name}={value}" for name, value in said.items()],
        "inferenceTime": f"{_utc(event.at_s):%Y-%m-%dT%H:%M:%SZ}",
    }
    if given := request.given_id:
        meta["inferenceId"] = given.decode("ascii")
    document = {
        "captureData": {
            "endpointInput": _side("INPUT", request.header(b"content-type"), request.body),
            "endpointOutput": _side("OUTPUT", answer.content_type, answer.body),
        },
        "eventMetadata": meta,
        "eventVersion": VERSION,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _side(mode: str, content_type: str, body: bytes) -> dict[str, str]:
    encoding = _TEXT.get(content_type.partition(";")[0].strip().lower(), "BASE64")
    try:
        text = body.decode() if encoding != "BASE64" else base64.b64encode(body).decode()
    except UnicodeDecodeError:
        encoding, text = "BASE64", base64.b64encode(body).decode()
    return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}


def _utc(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
