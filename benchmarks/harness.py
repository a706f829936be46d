"""What every benchmark shares: options, peers in environments of their own, and the result.

A benchmark times trademl and a peer in alternation, in one run, and reports ratios. Its result is
one JSON object:

========= =====================================================================================
name      which benchmark
quick     whether sizes were cut down to try it out; such figures mean nothing
ratios    name -> number, or null where a peer did not run
goals     name of a ratio -> {"min": bound} or {"max": bound}
met       name of a goal -> whether its ratio is there and within the bound
checks    name -> whether what was timed also gave the right answer
seconds   name of a side -> median seconds of one run, or null
machine   cpu, cores this process may use, memory in GiB, kernel
versions  python, trademl, libraries, and peers as ``name (peer)``
commit    of trademl, with "-dirty" where files but results differ from it, or null
command   what was run
does_not_show  sentences: what not to conclude
========= =====================================================================================

Exit code 0: every goal met. 1: a goal was missed or a check failed. 3: a goal has no ratio, because
its peer did not run. The last lines on stderr say which.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent
MISSED, NOT_RUN = 1, 3

Seconds = float | None


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark is, before it runs.

    Parameters
    ----------
    name : str
        The file's name, and that of its results.
    goals : mapping
        Name of a ratio to ``{"min": bound}`` or ``{"max": bound}``.
    libraries : sequence of str
        Distributions whose versions matter; trademl is always named.
    peers : sequence of str
        Names of files ``peers/<peer>.txt``.
    does_not_show : sequence of str
        Sentences.
    """

    name: str
    goals: Mapping[str, Mapping[str, float]]
    libraries: Sequence[str] = ()
    peers: Sequence[str] = ()
    does_not_show: Sequence[str] = ()


@dataclass
class Measurement:
    """What a run found; ``notes`` are reasons for what is missing."""

    ratios: dict[str, float | None]
    seconds: dict[str, Seconds]
    checks: dict[str, bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def main(benchmark: Benchmark, measure: Callable[[bool], Measurement]) -> int:
    """Run ``measure(quick)``, print its result, and return the exit code."""
    options = _parse_options(benchmark)
    result = measure(options.quick)
    report = _report(benchmark, result, quick=options.quick)
    print(json.dumps(report, indent=2) if options.json else _table(report))
    code, lines = verdict(report)
    print(*lines, *result.notes, sep="\n", file=sys.stderr)
    return code


def verdict(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Return the exit code that a report earns, and one line for each reason."""
    absent = [name for name in report["goals"] if report["ratios"].get(name) is None]
    missed = [name for name, met in report["met"].items() if not met and name not in absent]
    failed = [name for name, passed in report["checks"].items() if not passed]
    lines = [f"NOT RUN: {name} has no ratio, its peer did not run" for name in absent]
    lines += [
        f"MISSED: {name} is {report['ratios'][name]:.3g}, goal {_goal_text(report['goals'][name])}"
        for name in missed
    ]
    lines += [f"WRONG: check {name} failed" for name in failed]
    if missed or failed:
        return MISSED, lines
    return (NOT_RUN, lines) if absent else (0, ["every goal met"])


# Timing


def timed(job: Callable[[], object]) -> float:
    """Return the seconds that a job takes."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def alternate(
    sides: Mapping[str, Callable[[], Seconds]],
    rounds: int,
    *,
    before: Callable[[], object] = lambda: None,
) -> dict[str, Seconds]:
    """Run all sides in turn, round after round, and return the median seconds of each.

    A first round is run and not counted. Every other round goes backwards, so that no side always
    follows the same one; ``before`` puts the machine into one state for each. A side that once
    returned None has no median.
    """
    print(f"timing {', '.join(sides)}: {rounds} rounds", file=sys.stderr)
    seconds: dict[str, list[Seconds]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            before()
            seconds[name].append(sides[name]())
    return {name: _median(values[1:]) for name, values in seconds.items()}


def ratio(numerator: Seconds, denominator: Seconds) -> float | None:
    """Return the quotient, or None where one is missing."""
    return None if numerator is None or denominator is None else numerator / denominator


def _median(values: Sequence[Seconds]) -> Seconds:
    present = [value for value in values if value is not None]
    return statistics.median(present) if len(present) == len(values) else None


# Peers


class PeerError(Exception):
    """A peer cannot be installed, started or understood."""


class Peer:
    """A peer's worker process, kept alive so that calls can alternate with trademl's.

    Its distributions are pinned in ``peers/<name>.txt`` and installed under ``.venvs/<name>/`` when
    first needed or when the pins change; ``peers/<name>_worker.py`` answers one JSON object a line.
    Once the peer failed, ``failure`` says why, and every later call gives None.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process: subprocess.Popen[str] | None = None
        self.failure: str | None = None

    def __enter__(self) -> Self:
        try:
            python = _peer_python(self._name)
            self._process = subprocess.Popen(
                [python, HERE / "peers" / f"{self._name}_worker.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except (PeerError, OSError) as error:
            self.failure = f"peer {self._name}: {error}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()

    def call(self, job: str, **arguments: Any) -> Any:
        """Return what the worker answers to a job, or None."""
        if self.failure:
            return None
        try:
            return self._ask({"job": job, **arguments})
        except (PeerError, OSError, ValueError) as error:
            self.failure = f"peer {self._name}: {job}: {error}"
            return None

    def _ask(self, request: Mapping[str, Any]) -> Any:
        if not self._process or not self._process.stdin or not self._process.stdout:
            raise PeerError("used outside its with block")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise PeerError(f"its worker ended with exit code {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply["answer"]


def _peer_python(name: str) -> Path:
    """Return the interpreter of the peer's environment, built where it is not up to date."""
    pins, venv = HERE / "peers" / f"{name}.txt", HERE / ".venvs" / name
    python, installed = venv / "bin" / "python", venv / "installed.txt"
    if not installed.exists() or installed.read_text() != pins.read_text():
        print(f"installing peer {name}", file=sys.stderr)
        _run([sys.executable, "-m", "venv", "--clear", venv])
        _run([python, "-m", "pip", "install", "--quiet", "--requirement", pins])
        installed.write_text(pins.read_text())
    return python


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise PeerError(f"cannot be installed: {last[0]}")


# Reporting


def _parse_options(benchmark: Benchmark) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Benchmark {benchmark.name}.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    return parser.parse_args()


def _report(benchmark: Benchmark, result: Measurement, *, quick: bool) -> dict[str, Any]:
    return {
        "name": benchmark.name,
        "quick": quick,
        "ratios": result.ratios,
        "goals": benchmark.goals,
        "met": {n: _is_met(result.ratios.get(n), goal) for n, goal in benchmark.goals.items()},
        "checks": result.checks,
        "seconds": result.seconds,
        "machine": _machine(),
        "versions": _versions(benchmark),
        "commit": _commit(),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "does_not_show": benchmark.does_not_show,
    }


def _is_met(found: float | None, goal: Mapping[str, float]) -> bool:
    if found is None:
        return False
    return goal.get("min", -float("inf")) <= found <= goal.get("max", float("inf"))


def _goal_text(goal: Mapping[str, float]) -> str:
    words = {"min": "at least", "max": "at most"}
    return " and ".join(f"{words[side]} {bound}" for side, bound in goal.items())


def _table(report: Mapping[str, Any]) -> str:
    lines = []
    for name, value in report["ratios"].items():
        goal = report["goals"].get(name)
        shown = "not run" if value is None else f"{value:.3g}"
        lines.append(f"{name:36} {shown:>8}  {_goal_text(goal) if goal else ''}".rstrip())
    return "\n".join(lines)


def _machine() -> dict[str, Any]:
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu[0].split(":", 1)[1].strip() if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def _versions(benchmark: Benchmark) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    versions |= {name: version(name) for name in ("trademl", *benchmark.libraries)}
    for peer in benchmark.peers:
        for pin in (HERE / "peers" / f"{peer}.txt").read_text().split():
            name, _, pinned = pin.partition("==")
            versions[f"{name} (peer)"] = pinned
    return versions


def _commit() -> str | None:
    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(HERE), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--verify", "--quiet", "HEAD")
    changed = git("status", "--porcelain", "--", ":/", ":(exclude,top)benchmarks/results")
    return f"{commit}-dirty" if commit and changed else commit
