"""``trademl deploy local --start``: a server of several processes that keeps what it answers."""

from __future__ import annotations

import json
import shutil
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
    (deployed,) = {row.model_id for row in deployments(workspace)}
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
