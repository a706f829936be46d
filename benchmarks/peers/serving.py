"""What the workers of all peer servers share: start one server, pinned to a core, and stop it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
_started: list[subprocess.Popen[bytes]] = []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(command: Sequence[str], port: int, core: int, environment: Mapping[str, str]) -> None:
    """Start a server that ends with this process, and wait until it listens."""

    def in_child() -> None:
        os.sched_setaffinity(0, {core})
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)

    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        cwd=HERE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=in_child,
        start_new_session=True,
    )
    _started.append(process)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if process.poll() is not None:
            last = process.stderr.read().decode().strip().splitlines()[-1:] or ["no word"]
            raise RuntimeError(f"the server ended: {last[0]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the server does not listen after two minutes")


def stop() -> None:
    """Stop what was started, with all that it started."""
    while _started:
        process = _started.pop()
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
