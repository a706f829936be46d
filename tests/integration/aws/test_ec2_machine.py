"""A release on a machine whose Docker starts the real server: real files, real curl, real HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hosting_cases import AWS, HOSTING, score_of, served_strategy
from serving_cases import port_of_ones_own
from trademl.aws.ec2_release import Release, plan_release
from trademl.aws.ec2_settings import Ec2Config
from trademl.serve.freshness import Freshness
from trademl.serve.serving_artifact import serving_artifact
from trademl.serve.serving_folder import write_serving
from trademl.serve.smoke_files import SCORES, smoke_files
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import Artifact, ArtifactStore

TOKEN = "predict-token-0001"
ROW = b'{"instances":[{"features":[0.1,0.0,-0.2]}]}'
# systemd, as far as the script knows it: one unit, which it runs in a session of its own.
SYSTEMCTL = """#!/bin/bash
stop() {
  [ -e "$MACHINE/pid" ] || return 0
  pid="$(cat "$MACHINE/pid")"
  kill -- "-$pid"
  while [ -e "/proc/$pid" ] && ! grep -q ') Z' "/proc/$pid/stat"; do sleep 0.02; done
  rm -f "$MACHINE/pid"
}
case "$1" in
  restart)
    stop
    command="$(sed -n 's/^ExecStart=//p' "$MACHINE/units/trademl.service")"
    setsid $command >> "$MACHINE/journal" 2>&1 < /dev/null &
    echo $! > "$MACHINE/pid" ;;
  disable) stop ;;
esac
"""
# Docker, as far as the unit knows it: folders stand where the container would see them.
DOCKER = """#!/usr/bin/env python3
import os, sys
words = sys.argv[1:]
if words[0] == "run":
    given = dict(zip(words, words[1:]))
    mounts = dict(w.removesuffix(":ro").split(":")[::-1] for w in words if w.endswith(":ro"))
    host, _, port = given["--publish"].removesuffix(":8080").rpartition(":")
    root = os.path.dirname(mounts["/opt/ml/model"])
    rest = [mounts.get(word, word) for word in words[words.index("serve") + 1:]]
    os.execv(os.environ["PYTHON"], [os.environ["PYTHON"], "-m", "trademl", "serve", "--ml-root",
             root, "--port", port, "--host", host.strip("[]"), *rest])
"""
AWS_CLI = """#!/bin/bash
case "$1" in
  s3) cp "$ARCHIVE" "${@: -1}" ;;
  ssm) printf 'predict %s\\n' "$TOKEN" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment of a machine; its server ends with the test."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "units").mkdir()
    texts = {"systemctl": SYSTEMCTL, "docker": DOCKER, "aws": AWS_CLI, "chown": "#!/bin/sh\n"}
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environ = {name: os.environ[name] for name in ("PYTHONPATH", "HOME") if name in os.environ}
    yield {**environ, "PATH": f"{programs}:{os.environ['PATH']}", "MACHINE": str(tmp_path),
           "PYTHON": sys.executable, "TOKEN": TOKEN}  # fmt: skip
    if (pid := tmp_path / "pid").exists():
        os.killpg(int(pid.read_text()), signal.SIGTERM)


@pytest.fixture
def port() -> Iterator[int]:
    with port_of_ones_own() as kept:
        yield kept


def release(
    tmp_path: Path,
    strategies: tuple[ServedStrategy, ...],
    serving: Artifact | None = None,
    **changes: Any,
) -> Release:
    serving = serving or serving_artifact(strategies, ArtifactStore(tmp_path / "store"))
    config = Ec2Config(**changes)
    units = str(tmp_path / "units")
    found = plan_release(
        serving, strategies, AWS, HOSTING, config, root=str(tmp_path / "opt"), units=units
    )
    unit = found.unit.replace("/usr/bin/docker", "docker")
    return replace(found, install=found.install.replace(_encoded(found.unit), _encoded(unit)))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def install(found: Release, machine: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", found.install], env={**machine, "ARCHIVE": str(found.archive)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def ask(found: Release, **headers: str) -> tuple[int, Any, str | None]:
    """Return status, answer and the model that gave it."""
    connection = http.client.HTTPConnection(urlsplit(found.ec2.own_url).netloc, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/invocations", ROW, {"Content-Type": "application/json", **sent})
    response = connection.getresponse()
    answer = response.status, json.loads(response.read()), response.headers["X-Trademl-Model"]
    connection.close()
    return answer


@pytest.fixture
def two(tmp_path: Path) -> tuple[ServedStrategy, ...]:
    """Return a strategy with two models, and one that wants to know the time of its features."""
    store = tmp_path / "store"
    return (
        served_strategy(store, "btc", 0.5, 0.25),
        served_strategy(store, "alice", 0.75, freshness=Freshness(needs_feature_time=True)),
    )


def test_strategies_share_a_machine_and_go_back_together(tmp_path, machine, two, port):
    first = release(tmp_path, two, port=port)
    done = install(first, machine)
    assert done.returncode == 0, done.stderr
    before = ask(first, X_Trademl_Strategy="btc"), ask(first, X_Trademl_Strategy="alice")

    store = ArtifactStore(tmp_path / "store")
    questions = smoke_files(two[1:])
    questions[SCORES] = questions[SCORES].replace(repr(score_of(0.75)).encode(), b"0.9")
    with store.create("serving-000000000001", parents=[], parameters={}) as draft:
        write_serving(two[1:], draft.path / "model.tar.gz", questions)
    failed = install(
        release(tmp_path, two[1:], store.get("serving-000000000001"), port=port), machine
    )
    after = ask(first, X_Trademl_Strategy="btc"), ask(first, X_Trademl_Strategy="alice")

    assert re.search(r"answers, btc scores 0\.6224\S+ by \S+, alice scores 0\.6791", done.stdout)
    assert before[0][1]["predictions"][0]["score"] == pytest.approx(score_of(0.5))
    assert before[1][1]["predictions"] == []  # nobody said how old its features are
    assert "alice scores" in failed.stderr
    assert f"{first.id} runs again" in failed.stderr
    assert [status for status, *_ in after] == [200, 200]


def test_an_address_that_others_reach_is_asked_there_with_a_token(tmp_path, machine, two, port):
    found = release(tmp_path, two, port=port, bind="127.0.0.2", token_parameter="/trademl/tokens")

    done = install(found, machine)

    assert done.returncode == 0, done.stderr
    assert ask(found)[0] == 401
    assert ask(found, Authorization=f"Bearer {TOKEN}")[0] == 200
    assert TOKEN not in found.install + found.unit + found.compose + done.stdout + done.stderr
    assert (tmp_path / "opt/current/tokens").stat().st_mode & 0o777 == 0o600
