"""What a server says of itself on stderr: text for people, JSON lines for machines.

A thread writes, so that a slow reader of the log never holds up a request; what does not fit the
queue is dropped and counted.
"""

from __future__ import annotations

import json
import logging
import queue
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Literal, TextIO

LogFormat = Literal["text", "json"]
MOST_LINES = 10_000  # that wait to be written
_END_S = 2.0  # for a log that nobody reads, at the end


@contextmanager
def logging_to(
    stream: TextIO, form: LogFormat, *, worker: int | None = None, most: int = MOST_LINES
) -> Iterator[None]:
    """Write what this process logs: warnings of every library, and all that trademl says.

    Parameters
    ----------
    worker : int, optional
        Number of this process, said in every line.
    """
    lines: queue.Queue[Any] = queue.Queue(most)
    writer = logging.StreamHandler(stream)
    writer.setFormatter((JsonLines if form == "json" else TextLines)(worker))
    waiting, listener = _Waiting(lines), _Listener(lines, writer)
    root, ours = logging.getLogger(), logging.getLogger("trademl")
    before = ours.level
    root.addHandler(waiting)
    ours.setLevel(logging.INFO)
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(waiting)
        ours.setLevel(before)
        listener.stop()


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, and the record's ``fields``.

    A record with ``raw`` is written as that, whatever the format: it is a line for a machine.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        if (raw := getattr(record, "raw", None)) is not None:
            return str(raw)
        said = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
            **_fields(record),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str, separators=(",", ":"))


class TextLines(logging.Formatter):
    """Time, level, message and fields; a traceback below."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = "" if worker is None else f" worker {worker}"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        if (raw := getattr(record, "raw", None)) is not None:
            return str(raw)
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        level = record.levelname.lower()
        text = f"{_time(record)} {level}{self._worker} {record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _time(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03}Z"


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


class _Waiting(QueueHandler):
    """Queues records; says, once there is room again, how many found none."""

    n_dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # it stays in this process, so that it may keep its exception

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self.n_dropped:
                self.queue.put_nowait(_about_dropped(self.n_dropped))
                self.n_dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self.n_dropped += 1


def _about_dropped(n: int) -> logging.LogRecord:
    text = f"{n} lines of the log were dropped: they came faster than they could be written"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (), None)


class _Listener(QueueListener):
    def enqueue_sentinel(self) -> None:
        self.queue.put(self._sentinel, timeout=_END_S)  # type: ignore[attr-defined]
