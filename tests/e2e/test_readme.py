"""Every code block of the README runs, in order, in an empty folder with a recording in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from market_cases import random_walk
from serving_cases import port_of_ones_own

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
SHELL = [
    line.split("#")[0].strip()
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
]
MAKE = [line for line in SHELL if line.startswith("make ")]
VERBS = [line for line in SHELL if line.startswith("trademl ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the recordings that the README speaks of."""
    import pandas as pd

    path = tmp_path_factory.mktemp("readme")
    quotes = random_walk(20_000, seed=2)
    times = pd.to_datetime(quotes.ts_event)
    table = pd.DataFrame({"time": times.tz_localize("UTC"), "bid": quotes.bid, "ask": quotes.ask})
    table.to_parquet(path / "quotes.parquet")
    prints = np.where(np.arange(len(quotes)) % 2, quotes.bid, quotes.ask)
    pd.DataFrame({"time": times, "price": prints}).to_csv(path / "prints.csv", index=False)
    return path


def environment():
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(command, folder):
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=900,
        shell=isinstance(command, str),
    )  # fmt: skip


def test_the_two_commands_are_targets_of_the_makefile():
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line.split()[1] for line in MAKE] == ["demo", "test"]
    assert {line.split()[1] for line in MAKE} <= set(targets)


def test_the_two_commands_are_on_the_first_screen():
    first_screen = README.splitlines()[:25]
    assert any(line.startswith("make demo") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)


def test_recordings_of_ones_own(folder):
    lines = [line for line in VERBS if "--quotes" in line]
    assert len(lines) == 2
    for line in lines:
        done = run(line, folder)
        assert done.returncode == 0, done.stderr


def test_a_strategy_of_ones_own_then_serve_then_the_library(folder):
    (project,) = (line.split()[2] for line in VERBS if line.startswith("trademl init"))
    assert run(f"trademl init {project}", folder).returncode == 0
    done = run("trademl run", folder / project)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "no edge after costs" in README
    (serve,) = (line for line in VERBS if line.startswith("trademl serve"))
    with port_of_ones_own() as port:
        answers_while_serving(serve.replace("8080", str(port)), port, folder / project)
    ((_, code),) = [block for block in BLOCKS if block[0] == "python"]
    done = run([sys.executable, "-c", code], folder / project)
    assert done.stdout.strip() == "no edge after costs", done.stderr


def answers_while_serving(command, port, folder):
    server = subprocess.Popen(command.split(), cwd=folder, env=environment())
    try:
        until = time.monotonic() + 120
        while server.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping") as answer:
                    assert answer.status == 200
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("the server never answered")
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(120) == 0


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
