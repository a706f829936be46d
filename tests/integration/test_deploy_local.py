"""``trademl deploy local --start``: a server of several processes that keeps what it answers."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from running import one_line
from serving_cases import wait_until
from trademl.ledger import Ledger, tables
from trademl.serve.client import predict


@pytest.fixture
def workspace(finished, trademl, tmp_path) -> Iterator[Path]:
    """A copy of the finished workspace, in which no server runs in the end."""
    copy = tmp_path / "ws"
    shutil.copytree(finished[0], copy)
    yield copy
    trademl("deploy", "local", "--stop", "--workspace", copy)


def started(trademl, workspace, *words) -> dict:
    done = trademl(
        "deploy", "local", "--start", "--port", "0", "--json", "--workspace", workspace, *words
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_starts_workers_that_keep_what_they_answer(trademl, workspace, tmp_path):
    kept = tmp_path / "kept"
    words = ["--workers", "2", "--capture", str(kept), "--capture-percent", "100"]
    words += ["--log-requests", "0"]

    service = started(trademl, workspace, *words)["service"]
    log = Path(service["log"]).read_text()
    status = trademl("deploy", "local", "--status", "--workspace", workspace).stdout
    trademl("deploy", "local", "--stop", "--workspace", workspace)

    assert f"2 workers answer at {service['url']}" in log
    assert "healthy" in status
    assert [json.loads(line) for path in kept.rglob("*.jsonl") for line in path.open()]
    assert {"2", str(kept), "100.0", "0.0"} <= set(service["command"])


def test_the_server_climbs_the_ladder_of_the_strategy_file(trademl, project, workspace, tmp_path):
    trained = trademl("train", "--hp", "wd=0.5", "--workspace", workspace)
    assert trained.returncode == 0, trained.stderr
    bigger = json.loads(trademl("models", "select", "--json", "--workspace", workspace).stdout)
    (deployed,) = {row.model_id for row in deployments(workspace) if row.retired_at is None}
    config = project / "rungs.toml"
    config.write_text(
        (project / "strategy.toml").read_text()
        + f'[[serving.rungs]]\nmodel = "{bigger["id"]}"\n[[serving.rungs]]\nmodel = "deployed"\n'
    )

    service = started(trademl, workspace, deployed, "--config", config)["service"]

    assert bigger["id"] != deployed
    row_1D = np.zeros((1, 65), np.float32)
    wait_until(lambda: predict(service["url"], row_1D).model_id == bigger["id"], "the bigger model")


def deployments(workspace: Path) -> list[tables.Deployment]:
    ledger = Ledger(f"sqlite:///{workspace / 'ledger.db'}")
    rows = ledger.rows(tables.Deployment)
    ledger.close()
    return rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "2"], "--workers is for the server that --start starts"),
        (["--start", "--workers", "300"], "workers is 300, expected from 1 to 256"),
        (["--start", "--capture-percent", "5"], "but nothing is captured"),
        (["--start", "--capture", "ftp://kept"], "captured requests go to a folder or s3://"),
        (["--start", "--capture", "strategy.toml"], "--capture"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_started(trademl, workspace, words, message):
    done = trademl("deploy", "local", *words, "--workspace", workspace)

    assert done.returncode == 1
    assert message in one_line(done)
    assert not (workspace / "service.json").exists()


def standing(workspace: Path) -> set[str]:
    return {row.model_id for row in deployments(workspace) if row.retired_at is None}


@pytest.fixture
def newer(trademl, workspace) -> str:
    """A second model of the workspace, deployed nowhere."""
    trained = trademl("train", "--hp", "wd=0.5", "--workspace", workspace)
    assert trained.returncode == 0, trained.stderr
    found = json.loads(trademl("models", "select", "--json", "--workspace", workspace).stdout)
    assert {found["id"]} != standing(workspace)
    return found["id"]


def test_a_server_is_started_asked_how_it_is_and_stopped(trademl, workspace):
    def ask(word):
        done = trademl("deploy", "local", word, "--json", "--workspace", workspace)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    before = ask("--status")
    deployed = started(trademl, workspace)
    service = deployed["service"]
    answer = predict(service["url"], np.zeros((1, 65), np.float32))
    running = ask("--status")
    second = trademl("deploy", "local", "--start", "--workspace", workspace)
    stopped = ask("--stop")
    again = trademl("deploy", "local", "--stop", "--workspace", workspace)

    assert before == {"status": "stopped"}
    assert answer.model_id == deployed["model"]
    assert (running["status"], running["pid"]) == ("healthy", service["pid"])
    assert f"runs already at {service['url']}" in one_line(second)
    assert (stopped["status"], stopped["pid"]) == ("stopped", service["pid"])
    assert "no server runs in the background" in one_line(again)
    assert ask("--status") == {"status": "stopped"}


def test_a_port_in_use_is_said_before_anything_is_written_down(trademl, workspace, newer):
    before = deployments(workspace)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = trademl(
            "deploy", "local", newer, "--start", "--port", port, "--workspace", workspace
        )

    assert f"cannot listen on 127.0.0.1 port {port}, it is in use" in one_line(done)
    assert len(deployments(workspace)) == len(before)


def test_what_stood_there_comes_back_where_the_server_does_not_start(
    trademl, project, workspace, newer, tmp_path
):
    before = standing(workspace)
    broken = tmp_path / "sitecustomize"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys\nif '--endpoint' in sys.orig_argv: sys.exit('it cannot start')\n"
    )
    paths = [str(broken), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    words = ("--start", "--port", "0", "--workspace", workspace)

    done = trademl("deploy", "local", newer, *words, env=environment)
    status = trademl("deploy", "local", "--status", "--workspace", workspace)

    assert "it cannot start" in one_line(done)
    assert standing(workspace) == before
    (failed,) = (row for row in deployments(workspace) if row.model_id == newer)
    assert failed.retired_at is not None
    assert "no server runs" in status.stdout
    assert started(trademl, workspace, newer)["model"] == newer
    assert standing(workspace) == {newer}


def test_a_model_that_does_not_load_is_not_written_down(trademl, workspace, newer):
    before = standing(workspace)
    (archive,) = workspace.rglob(f"{newer}/model.tar.gz")
    archive.chmod(0o600)
    archive.write_bytes(bytes(archive.stat().st_size))

    done = trademl("deploy", "local", newer, "--workspace", workspace)

    assert done.returncode == 1
    assert "changed or damaged" in one_line(done)
    assert standing(workspace) == before
