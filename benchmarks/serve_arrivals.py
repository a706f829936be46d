"""An open-loop HTTP/1.1 client: requests leave at their time, whether or not answers came.

It reads one JSON object from stdin and prints one. A request takes a connection that awaits
nothing, and where there is none follows another one on its connection. Every answer is held
against the score that the model it names gives to the row that was asked.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_TIER = re.compile(rb"x-trademl-tier: *(\w+)", re.IGNORECASE)
_MODEL = re.compile(rb"x-trademl-model: *(\w+)", re.IGNORECASE)
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
    latency_s: array[float] = field(default_factory=lambda: array("d"))
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
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(line.read) < whole:
                return
            body, line.read = line.read[end + 4 : whole], line.read[whole:]
            k, due_s = line.waiting.popleft()
            self.latency_s.append(time.perf_counter() - due_s)
            self._count(k, head, body)

    def _count(self, k: int, head: bytes, body: bytes) -> None:
        self.statuses[int(head[9:12])] += 1
        tier, model = _TIER.search(head), _MODEL.search(head)
        self.tiers[tier[1].decode() if tier else "none"] += 1
        if model:
            self.n_mixed += self.expected[model[1].decode()][k] not in body
        else:
            self.n_mixed += b'"score"' in body


def main() -> None:
    asked = json.load(sys.stdin)
    if asked["core"] is not None:
        os.sched_setaffinity(0, {asked["core"]})
    rows = json.loads(Path(asked["rows"]).read_text())
    expected = {name: [text.encode() for text in rows[name]] for name in ("biggest", "smallest")}
    bodies = [body.encode() for body in rows["bodies"]]
    arrivals = Arrivals(asked["port"], bodies, expected, asked["deadline_ms"], asked["lines"])
    arrivals.run(asked["rate"], asked["seconds"])
    ordered, late = sorted(arrivals.latency_s), sorted(arrivals.late_s)
    told = {
        "n_sent": arrivals.n_sent,
        "n_lost": arrivals.n_lost,
        "n_mixed": arrivals.n_mixed,
        "tiers": arrivals.tiers,
        "statuses": arrivals.statuses,
        "late_p99_ms": late[int(len(late) * 0.99)] * 1000,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
