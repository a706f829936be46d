"""Benchmark the ladder under load: five times what the biggest model can answer, for five minutes.

Requests arrive open loop, each another row than those before, with a deadline counted from when it
was due. The biggest model is slow by a known processor cost, chosen so that what
arrives is a quarter more than even the smallest one, alone on the server, can answer.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from harness import HERE, Benchmark, Measurement, main
from serve import DECIDED, D, OurServer, Rounds, Target, http, json_of, our_server
from serve_worker import models

N_ROWS = 10_000  # more than the cache holds, asked in turn
LINES, DEADLINE_MS, TIMES = 256, 250.0, 5.0
SLOWER = (
    4.0  # than the smallest is the biggest model, request by request: 5/4 of the smallest arrive
)
GROWTH = 1.05
BENCHMARK = Benchmark(
    name="serve_overload",
    goals={
        "overload_5xx": {"max": 0},
        "overload_p99_vs_deadline": {"max": 1},
        "overload_goodput_vs_smallest": {"min": 0.8},
    },
    libraries=("numpy", "numba", "orjson", "uvloop", "httptools"),
    does_not_show=(
        "The biggest model is a linear one that first multiplies matrices for a fixed processor "
        "time per row, such that it answers a quarter of what the smallest does; batches make it "
        "no cheaper, as they would a network. On a quick machine that is too little for a thread: "
        "it then computes on the event loop, as the smallest does.",
        "Capacity is what 32 connections get that wait for their answers (closed loop, by "
        "serve_load.py), from a server of that model alone, before and after the load. Goodput "
        "are decisions a second within the deadline, from whatever tier, over the smallest's "
        "capacity.",
        "No answer is a cached one: the smallest model is quick, and quicker than a kept answer "
        "could be found, so that it is asked wherever there is time to read the request.",
        "Latency counts from when a request was due, so the client's own delays are in it. Client "
        "and server share the machine, one core each; the client's share of its core is printed.",
        f"Deadline {DEADLINE_MS:g} ms. One strategy: shares between several are not tested.",
    ),
)


@dataclass(frozen=True)
class Rows:
    """Requests, and the file that tells the client which scores are right."""

    path: Path
    first: bytes


def measure(quick: bool) -> Measurement:
    cores = sorted(os.sched_getaffinity(0))
    core, client_core = cores[0], cores[min(1, len(cores) - 1)]
    seconds = 20.0 if quick else 300.0
    with tempfile.TemporaryDirectory() as folder:
        weights_D = np.random.default_rng(8).normal(0, 0.01, D)
        weights = Path(folder) / "weights.npy"
        np.save(weights, weights_D)
        rows = write_rows(Path(folder) / "rows.json", weights_D)
        rounds = Rounds(2.0 if quick else 5.0, client_core)
        rates = answer_rates(rounds, rows, weights, core, "smallest")
        smallest = float(np.median(rates))
        slow_s = (SLOWER - 1) / smallest
        biggest = float(np.median(answer_rates(rounds, rows, weights, core, "biggest", slow_s)))
        slow_s = max(0.0, slow_s + SLOWER / smallest - 1 / biggest)  # what else it costs
        biggest = float(np.median(answer_rates(rounds, rows, weights, core, "biggest", slow_s)))
        with our_server(weights, core, "--slow", str(slow_s)) as server:
            told, memory = overload(server, rows, TIMES * biggest, seconds, client_core)
            level = recovered_level(server, rows)
            changes = tier_changes(server)
        rates += answer_rates(rounds, rows, weights, core, "smallest")
        smallest = float(np.median(rates))  # before and after: a machine's pace may drift
    return result(told, memory, seconds, smallest, biggest, changes, level)


def result(
    told: dict[str, Any],
    memory: tuple[float, float],
    seconds: float,
    smallest: float,
    biggest: float,
    changes: dict[str, int],
    level: int,
) -> Measurement:
    tiers, n = told["tiers"], told["n_sent"]
    n_5xx = sum(count for status, count in told["statuses"].items() if status.startswith("5"))
    ratios: dict[str, float | None] = {
        "overload_5xx": n_5xx,
        "overload_p99_vs_deadline": max(told["p99_ms"], told["decided_p99_ms"]) / DEADLINE_MS,
        "overload_goodput_vs_smallest": told["in_time"] / seconds / smallest,
        "decided_p99_vs_deadline": told["decided_p99_ms"] / DEADLINE_MS,
        "abstain_share": tiers.get("abstain", 0) / n,
        "arrivals_vs_smallest": n / seconds / smallest,
        "memory_growth": memory[1] / memory[0],
        "tier_changes": sum(changes.values()),
    }
    checks = {
        "no_answer_lost": told["n_lost"] == 0,
        "client_kept_up": told["late_p99_ms"] < DEADLINE_MS / 2 and told["busy"] < 0.9,
        "no_answer_mixed": told["n_mixed"] == 0,
        "every_status_is_200": set(told["statuses"]) == {"200"},
        "tiers_went_down": any(change.startswith("biggest") for change in changes),
        "tiers_came_back": level == 0,
        "no_flapping": sum(changes.values()) <= 10 + 2 * seconds / 60,
        "memory_is_flat": memory[1] <= memory[0] * GROWTH,
    }
    print(
        f"capacity: smallest {smallest:.0f}/s, biggest {biggest:.0f}/s; sent {n / seconds:.0f}/s\n"
        f"tiers {tiers}, changes {changes}; memory {memory[0]:.0f} MB, then {memory[1]:.0f} MB\n"
        f"p50 {told['p50_ms']:.1f} ms, p99 {told['p99_ms']:.1f} ms, of decisions "
        f"{told['decided_p99_ms']:.1f} ms; the client was busy for {told['busy']:.2f} of its core "
        f"and sent late by {told['late_p99_ms']:.1f} ms (p99)",
        file=sys.stderr,
    )
    return Measurement(ratios, {"smallest": 1 / smallest, "biggest": 1 / biggest}, checks)


def write_rows(path: Path, weights_D: np.ndarray) -> Rows:
    """Write requests of different rows, and what either model says of each."""
    rng = np.random.default_rng(9)
    rows_ND = (np.round(rng.normal(0, 50, (N_ROWS, D)) * 4) / 4).astype(np.float32)
    bodies = [json_of(row_ND) for row_ND in np.split(rows_ND, N_ROWS)]
    texts = {
        model.id: [
            orjson.dumps({"score": score}, option=orjson.OPT_SERIALIZE_NUMPY).decode()[1:-1] + ","
            for score in model.scores(rows_ND).score_N
        ]
        for model in models(weights_D)
    }
    path.write_text(json.dumps({"bodies": [body.decode() for body in bodies], **texts}))
    return Rows(path, bodies[0])


def answer_rates(
    rounds: Rounds, rows: Rows, weights: Path, core: int, name: str, slow_s: float | None = None
) -> list[float]:
    """Return answers a second of a server with one model, asked as fast as it answers."""
    slow = [] if slow_s is None else ["--slow", str(slow_s)]
    request = http("POST", "/invocations", rows.first, "application/json")
    with our_server(weights, core, "--only", name, *slow) as server:
        ask = rounds.side(name, Target(server.port, request, DECIDED))
        return [1 / (ask() or 1.0) for _ in range(4)][1:]


def overload(
    server: OurServer, rows: Rows, rate: float, seconds: float, client_core: int
) -> tuple[dict[str, Any], tuple[float, float]]:
    """Let requests arrive; return what the client tells, and memory early and at the end."""
    asked = {
        "port": server.port,
        "rows": str(rows.path),
        "rate": rate,
        "seconds": seconds,
        "deadline_ms": DEADLINE_MS,
        "lines": LINES,
        "core": client_core,
    }
    client = subprocess.Popen(
        [sys.executable, HERE / "serve_arrivals.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin is not None
    client.stdin.write(json.dumps(asked))
    client.stdin.close()
    client.stdin = None
    time.sleep(seconds * 0.3)  # the cache is full by then
    early_mb = server.resident_mb()
    said, _ = client.communicate(timeout=seconds + 120)
    if client.returncode:
        raise RuntimeError("the client failed")
    return json.loads(said), (early_mb, server.resident_mb())


def recovered_level(server: OurServer, rows: Rows) -> int:
    """Ask now and then, until the strategy stands on its biggest model again or a minute passed."""
    level = -1
    for _ in range(600):
        post(server.port, rows.first)
        found = re.search(r"^trademl_level\{.*\} (\d+)", metrics(server.port), re.MULTILINE)
        if found and (level := int(found[1])) == 0:
            break
        time.sleep(0.1)
    return level


def tier_changes(server: OurServer) -> dict[str, int]:
    """Return how often the strategy went from which tier to which."""
    pattern = r'^trademl_tier_changes_total\{.*old="(\w+)",new="(\w+)"\} (\d+)'
    found = re.findall(pattern, metrics(server.port), re.MULTILINE)
    return {f"{old} -> {new}": int(count) for old, new, count in found}


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def post(port: int, body: bytes) -> None:
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, kind)
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
