"""A closed-loop HTTP/1.1 client that is quicker than what it measures: sockets and epoll, no more.

It reads one JSON object, ``{"port": ..., "request": "<base64>", ...}``, and prints one. Each
connection sends its next request once it has read the whole answer to the one before.
"""

from __future__ import annotations

import base64
import json
import os
import re
import select
import socket
import sys
import time
from array import array
from collections.abc import Callable

LONGEST_S = 30.0  # that a first answer may take
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def load(
    port: int, request: bytes, mark: bytes, n_connections: int, seconds: float
) -> dict[str, float]:
    """Send one request again and again; return answers a second, latencies and failures.

    Parameters
    ----------
    mark : bytes
        What the right answer has in it.

    Returns
    -------
    dict
        ``rate`` answers a second, ``p50_ms`` and ``p99_ms``, ``failed`` answers other than 200
        or without the mark, ``busy`` the share of a processor core that this client took.
    """
    latency_s, failed = array("d"), 0
    poll, clients = select.epoll(), {}
    for _ in range(n_connections):
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(client, select.EPOLLIN)
        clients[client.fileno()] = [client.recv, client.sendall, b"", 0.0, client]
    now, began_cpu = time.perf_counter, time.process_time()
    began_s = now()
    for state in clients.values():
        state[3] = now()
        state[1](request)
    until_s = began_s + seconds
    while (at_s := now()) < until_s or (not latency_s and at_s < until_s + LONGEST_S):
        for number, _ in poll.poll(1.0):
            state = clients[number]
            data = state[2] + _received(state[0])
            if not _is_whole(data):
                state[2] = data
                continue
            done_s = now()
            latency_s.append(done_s - state[3])
            failed += not data.startswith(b"HTTP/1.1 200") or mark not in data
            state[2], state[3] = b"", done_s
            state[1](request)
    passed_s = at_s - began_s
    busy = (time.process_time() - began_cpu) / passed_s
    for state in clients.values():
        state[4].close()
    ordered = sorted(latency_s)
    return {
        "rate": len(ordered) / passed_s,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
        "failed": failed,
        "busy": busy,
    }


def _received(receive: Callable[[int], bytes]) -> bytes:
    data = receive(65536)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data


def _is_whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    if length := _LENGTH.search(head):
        return len(body) >= int(length[1])
    return body.endswith(b"0\r\n\r\n")  # in chunks


def main() -> None:
    asked = json.load(sys.stdin)
    if asked["core"] is not None:
        os.sched_setaffinity(0, {asked["core"]})
    request = base64.b64decode(asked["request"])
    mark = asked["mark"].encode()
    print(json.dumps(load(asked["port"], request, mark, asked["connections"], asked["seconds"])))


if __name__ == "__main__":
    main()
