"""Benchmark serving against MLServer, BentoML, Ray Serve, FastAPI and its own constant answer.

Job: one row of 605 features, JSON, CSV and RecordIO, by 32 connections that each wait for their
answer. Every server is one worker on one processor core, the client is on another. A peer runs
while it is timed and at no other time, in turns with trademl, so that each ratio has its own pair.
"""

from __future__ import annotations

import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from harness import HERE, Benchmark, Measurement, Peer, Seconds, alternate, main, ratio
from trademl.etl.recordio import encode_records

D, CONNECTIONS = 605, 32
DECIDED = "predicted_label"  # a decision, not an abstention
BENCHMARK = Benchmark(
    name="serve",
    goals={
        "json_vs_mlserver": {"min": 8},
        "json_vs_bentoml": {"min": 20},
        "json_vs_ray": {"min": 60},
        "json_vs_fastapi": {"min": 6},
        "json_vs_const": {"min": 0.4},
        "binary_vs_const": {"min": 0.6},
        "csv_vs_json": {"min": 0.8},
        "p99_vs_fastapi": {"max": 0.2},
        "worker_mb": {"max": 200},
    },
    libraries=("numpy", "numba", "orjson", "uvloop", "httptools"),
    peers=("fastapi", "mlserver", "bentoml", "ray"),
    does_not_show=(
        "Values are prices less the last price, in quarters: six characters a number on average. "
        "Numbers of 17 digits take trademl and orjson about twice as long.",
        "Every request is the same, so branches and caches are warm; trademl's answer cache is not "
        "asked, since the biggest model answers.",
        "The constant answer is /ping with the same body, which is received, counted and held to "
        "the same limits, and then not read; binary is compared with /ping and the binary body.",
        "Every server, Ray's proxy and replica together, has one core. The FastAPI of the goals is "
        "a plain function; json_vs_fastapi_async is the same as an async one.",
        "MLServer speaks its own V2 JSON, BentoML its own; MLServer computes in the process that "
        "listens, which is its quickest way.",
        "worker_mb is the resident memory, in units of 10**6 bytes, of a worker without torch with "
        "the compiled parser, after the load.",
    ),
)


@dataclass(frozen=True)
class Target:
    """Where a side listens, what it is sent, and what the right answer has in it."""

    port: int
    request: bytes
    mark: str = ""


@dataclass
class Rounds:
    """What the client said of each round of each side."""

    seconds: float
    client_core: int | None
    said: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def side(self, name: str, target: Target) -> Callable[[], Seconds]:
        """Return a side of the benchmark: seconds that one answer takes."""

        def ask() -> Seconds:
            found = self._load(target)
            self.said.setdefault(name, []).append(found)
            return 1 / found["rate"]

        return ask

    def median(self, name: str, figure: str) -> float | None:
        """Return the median of a figure, but for the first round."""
        rounds = self.said.get(name, [])[1:]
        return statistics.median(found[figure] for found in rounds) if rounds else None

    def _load(self, target: Target) -> dict[str, float]:
        asked = {
            "port": target.port,
            "request": base64.b64encode(target.request).decode(),
            "mark": target.mark,
            "connections": CONNECTIONS,
            "seconds": self.seconds,
            "core": self.client_core,
        }
        command = [sys.executable, HERE / "serve_load.py"]
        done = subprocess.run(
            command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True
        )
        said: dict[str, float] = json.loads(done.stdout)
        return said


def measure(quick: bool) -> Measurement:
    rows_ND = quarter_prices(np.random.default_rng(7))
    cores = sorted(os.sched_getaffinity(0))
    pins = (cores[0], cores[1]) if len(cores) > 1 else (cores[0], cores[0])
    rounds = Rounds(1.0 if quick else 4.0, pins[1])
    n, notes = (2, []) if quick else (5, [])
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npy"
        np.save(weights, np.random.default_rng(8).normal(0, 0.01, D))
        with our_server(weights, pins[0]) as server:
            seconds = alternate(own_sides(server.port, rows_ND, rounds), n)
            for name, requests in peer_requests(rows_ND).items():
                seconds |= against(name, requests, server.port, weights, pins[0], rounds, n, notes)
            resident_mb = server.resident_mb()
    report(rounds)
    failed = sum(found["failed"] for said in rounds.said.values() for found in said)
    checks = {"every_answer_decides": failed == 0, **is_server_the_limit(rounds)}
    return Measurement(
        {**ratios(seconds, rounds), "worker_mb": resident_mb}, seconds, checks, notes
    )


def quarter_prices(rng: np.random.Generator) -> np.ndarray:
    return (np.round(rng.normal(0, 50, (1, D)) * 4) / 4).astype(np.float32)


@dataclass(frozen=True)
class OurServer:
    port: int
    pid: int

    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def our_server(weights: Path, core: int, *options: str) -> Iterator[OurServer]:
    """Start trademl's server, and stop it at the end."""
    command = [sys.executable, HERE / "serve_worker.py", weights, *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        assert process.stdout is not None
        port = urlsplit(process.stdout.readline().strip()).port
        if port is None:
            raise RuntimeError(f"the server did not start: exit code {process.wait()}")
        yield OurServer(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def own_sides(
    port: int, rows_ND: np.ndarray, rounds: Rounds
) -> Mapping[str, Callable[[], Seconds]]:
    json_body = json_of(rows_ND)
    csv_body = ",".join(f"{x:g}" for x in rows_ND[0]).encode()
    record = encode_records(rows_ND)
    recordio = "application/x-recordio-protobuf"
    requests = {
        "const": http("GET", "/ping", json_body, "application/json"),
        "const_binary": http("GET", "/ping", record, recordio),
        "json": http("POST", "/invocations", json_body, "application/json"),
        "csv": http("POST", "/invocations", csv_body, "text/csv"),
        "binary": http("POST", "/invocations", record, recordio),
    }
    marks = dict.fromkeys(("json", "csv", "binary"), DECIDED)
    return {
        name: rounds.side(name, Target(port, request, marks.get(name, "")))
        for name, request in requests.items()
    }


def json_of(rows_ND: np.ndarray) -> bytes:
    values = [[float(f"{x:g}") for x in row] for row in rows_ND]
    instances = [{"features": row} for row in values]
    return json.dumps({"instances": instances}, separators=(",", ":")).encode()


def peer_requests(rows_ND: np.ndarray) -> Mapping[str, Mapping[str, bytes]]:
    """Return for each peer the requests that it is timed with."""
    body, kind = json_of(rows_ND), "application/json"
    inputs = {"name": "x", "shape": [1, D], "datatype": "FP32"}
    v2 = {"inputs": [{**inputs, "data": json.loads(body)["instances"][0]["features"]}]}
    v2_body = json.dumps(v2, separators=(",", ":")).encode()
    return {
        "fastapi": {
            "fastapi": http("POST", "/invocations", body, kind),
            "fastapi_async": http("POST", "/async", body, kind),
        },
        "mlserver": {"mlserver": http("POST", "/v2/models/linear/infer", v2_body, kind)},
        "bentoml": {"bentoml": http("POST", "/predict", body, kind)},
        "ray": {"ray": http("POST", "/", body, kind)},
    }


def http(method: str, path: str, body: bytes, content_type: str) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def against(
    name: str,
    requests: Mapping[str, bytes],
    our_port: int,
    weights: Path,
    core: int,
    rounds: Rounds,
    n: int,
    notes: list[str],
) -> dict[str, Seconds]:
    """Start one peer and return seconds of its sides, and of ours beside it."""
    our_request = http(
        "POST",
        "/invocations",
        json_of(quarter_prices(np.random.default_rng(7))),
        "application/json",
    )
    ours = f"json_beside_{name}"
    with Peer(name) as peer:
        port = peer.call("start", weights=str(weights), core=core)
        if port is None:
            notes.append(str(peer.failure))
            return dict.fromkeys([ours, *requests], None)
        try:
            time.sleep(1)
            sides = {ours: rounds.side(ours, Target(our_port, our_request, DECIDED))}
            sides |= {side: rounds.side(side, Target(port, r)) for side, r in requests.items()}
            return alternate(sides, n)
        except subprocess.CalledProcessError:
            notes.append(f"peer {name}: it gave no answer")
            return dict.fromkeys([ours, *requests], None)
        finally:
            peer.call("stop")


def ratios(seconds: Mapping[str, Seconds], rounds: Rounds) -> dict[str, float | None]:
    s = seconds
    beside = {name: s[f"json_beside_{name}"] for name in ("mlserver", "bentoml", "ray", "fastapi")}
    return {
        **{f"json_vs_{name}": ratio(s[name], ours) for name, ours in beside.items()},
        "json_vs_fastapi_async": ratio(s["fastapi_async"], beside["fastapi"]),
        "json_vs_const": ratio(s["const"], s["json"]),
        "binary_vs_const": ratio(s["const_binary"], s["binary"]),
        "csv_vs_json": ratio(s["json"], s["csv"]),
        "p99_vs_fastapi": ratio(
            rounds.median("json_beside_fastapi", "p99_ms"), rounds.median("fastapi", "p99_ms")
        ),
    }


def is_server_the_limit(rounds: Rounds) -> dict[str, bool]:
    """Say whether the client had time left even at the constant answer."""
    busy = rounds.median("const", "busy")
    return {"client_is_not_the_limit": busy is not None and busy < 0.9}


def report(rounds: Rounds) -> None:
    for name in rounds.said:
        figures: Sequence[float] = [
            rounds.median(name, figure) or 0.0 for figure in ("rate", "p50_ms", "p99_ms", "busy")
        ]
        print(
            "{:22} {:9.0f}/s  p50 {:7.2f} ms  p99 {:7.2f} ms  client busy {:.2f}".format(
                name, *figures
            ),
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
