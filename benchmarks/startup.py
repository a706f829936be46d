"""Start-up: ``trademl --help`` against an interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import Benchmark, Measurement, alternate, main, ratio, timed

BENCHMARK = Benchmark(
    name="startup",
    goals={"trademl_help_vs_python": {"max": 10}},
    libraries=("typer", "rich"),
    does_not_show=(
        "Files are in the page cache and compiled to bytecode: a first start takes longer.",
        "Other commands import what they need, and start later than --help does.",
    ),
)


def measure(quick: bool) -> Measurement:
    idle = [sys.executable, "-c", "pass"]
    script = Path(sys.executable).with_name("trademl")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "trademl"]
    sides = {
        "trademl_help": lambda: timed(lambda: run([*command, "--help"])),
        "python": lambda: timed(lambda: run(idle)),
    }
    seconds = alternate(sides, rounds=3 if quick else 21)
    ratios = {"trademl_help_vs_python": ratio(seconds["trademl_help"], seconds["python"])}
    return Measurement(ratios, seconds)


def run(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
