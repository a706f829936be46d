"""An open-loop HTTP/1.1 client: requests leave at their time, whether or not answers came.

It reads one JSON object from stdin and prints one. A request takes a connection that awaits
nothing, and where there is none follows another one on its connection. Every answer is held
against the score that the model it names gives to the row that was asked.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_DECIDED = ("biggest", "smallest", "cached", "delayed")
_LEEWAY_S = 3.0  # for the last answers


@dataclass
class Line:
    """One connection: what was read of the next answer, and who waits for answers, in order."""

    socket: socket.socket
    read: bytes = b""
    waiting: deque[tuple[int, float]] = field(default_factory=deque)


@dataclass
class Arrivals:
    """Sends rows one after another at a rate; counts what comes back.

    Parameters
    ----------
    bodies : list of bytes
        JSON requests.
    expected : dict
        Model id to the text that each body's answer has in it.
    """

    port: int
    bodies: list[bytes]
    expected: dict[str, list[bytes]]
    deadline_ms: float
    n_lines: int
    tiers: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    in_time: Counter[str] = field(default_factory=Counter)
    latency_s: array[float] = field(default_factory=lambda: array("d"))
    decided_s: array[float] = field(default_factory=lambda: array("d"))
    late_s: array[float] = field(default_factory=lambda: array("d"))
    n_sent: int = 0
    n_mixed: int = 0

    def __post_init__(self) -> None:
        self._poll = select.epoll()
        self._lines: dict[int, Line] = {}
        for _ in range(self.n_lines):
            line = Line(socket.create_connection(("127.0.0.1", self.port), timeout=30))
            line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.socket.sendall(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
            line.socket.recv(4096)  # the server has accepted it
            self._poll.register(line.socket, select.EPOLLIN)
            self._lines[line.socket.fileno()] = line
        self._idle = deque(self._lines.values())
        self._turn = deque(self._lines.values())

    def run(self, rate: float, seconds: float) -> None:
        """Send for a while, then wait for the answers that are still due."""
        now, began_s = time.perf_counter, time.perf_counter()
        n = int(rate * seconds)
        while self.n_sent < n:
            due = min(n, int((now() - began_s) * rate) + 1)
            for k in range(self.n_sent, min(due, self.n_sent + 64)):
                self._send(k, began_s + k / rate)
            wait_s = began_s + self.n_sent / rate - now()
            self._read(max(0.0, wait_s))
        until_s = now() + _LEEWAY_S
        while self.n_lost and now() < until_s:
            self._read(0.1)

    @property
    def n_lost(self) -> int:
        """Requests without an answer."""
        return self.n_sent - len(self.latency_s)

    def _send(self, k: int, due_s: float) -> None:
        line = self._idle.popleft() if self._idle else self._turn[0]
        self._turn.rotate(-1)
        body = self.bodies[k % len(self.bodies)]
        late_s = time.perf_counter() - due_s
        self.late_s.append(late_s)
        sent_ns = time.time_ns() - int(late_s * 1e9)
        line.waiting.append((k % len(self.bodies), due_s))
        self.n_sent += 1
        line.socket.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"X-Trademl-Deadline-Ms: %g\r\nX-Trademl-Sent-Ns: %d\r\nContent-Length: %d\r\n\r\n%b"
            % (self.deadline_ms, sent_ns, len(body), body)
        )

    def _read(self, wait_s: float) -> None:
        for number, _ in self._poll.poll(wait_s):
            line = self._lines[number]
            data = line.socket.recv(262144)
            if not data:
                raise ConnectionError("the server closed the connection")
            line.read += data
            self._take_answers(line)
            if not line.waiting:
                self._idle.append(line)

    def _take_answers(self, line: Line) -> None:
        while (end := line.read.find(b"\r\n\r\n")) >= 0:
            head = line.read[:end]
            whole = end + 4 + int(_value(head, b"Content-Length: ") or 0)
            if len(line.read) < whole:
                return
            body, line.read = line.read[end + 4 : whole], line.read[whole:]
            k, due_s = line.waiting.popleft()
            self._count(k, time.perf_counter() - due_s, head, body)

    def _count(self, k: int, latency_s: float, head: bytes, body: bytes) -> None:
        self.latency_s.append(latency_s)
        self.statuses[int(head[9:12])] += 1
        tier, model = _value(head, b"X-Trademl-Tier: "), _value(head, b"X-Trademl-Model: ")
        self.tiers[tier] += 1
        self.in_time[tier] += latency_s * 1000 <= self.deadline_ms
        if tier in _DECIDED:
            self.decided_s.append(latency_s)
        if model:
            self.n_mixed += self.expected[model][k] not in body
        else:
            self.n_mixed += b'"score"' in body


def _value(head: bytes, name: bytes) -> str:
    """Return a header's value, as the server under test spells its name; empty where absent."""
    start = head.find(name)
    if start < 0:
        return ""
    start += len(name)
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].decode()


def main() -> None:
    asked = json.load(sys.stdin)
    if asked["core"] is not None:
        os.sched_setaffinity(0, {asked["core"]})
    rows = json.loads(Path(asked["rows"]).read_text())
    expected = {name: [text.encode() for text in rows[name]] for name in ("biggest", "smallest")}
    bodies = [body.encode() for body in rows["bodies"]]
    arrivals = Arrivals(asked["port"], bodies, expected, asked["deadline_ms"], asked["lines"])
    began_cpu_s = time.process_time()
    arrivals.run(asked["rate"], asked["seconds"])
    busy = (time.process_time() - began_cpu_s) / asked["seconds"]
    told = {
        "n_sent": arrivals.n_sent,
        "n_lost": arrivals.n_lost,
        "n_mixed": arrivals.n_mixed,
        "tiers": arrivals.tiers,
        "in_time": sum(arrivals.in_time[tier] for tier in _DECIDED),
        "statuses": arrivals.statuses,
        "busy": busy,
        "late_p99_ms": _quantile_ms(arrivals.late_s, 0.99),
        "p50_ms": _quantile_ms(arrivals.latency_s, 0.5),
        "p99_ms": _quantile_ms(arrivals.latency_s, 0.99),
        "decided_p99_ms": _quantile_ms(arrivals.decided_s, 0.99),
    }
    print(json.dumps(told))


def _quantile_ms(seconds: array[float], share: float) -> float:
    return float(np.quantile(np.frombuffer(seconds), share)) * 1000 if seconds else 0.0


if __name__ == "__main__":
    main()
