"""``trademl train --network`` and what stands beside it, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from running import one_line
from trademl.etl.dataset import load_split
from trademl.store.artifacts import ArtifactStore
from trademl.train.network_file import load_network


@pytest.fixture(scope="module")
def workspace(finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("networks") / "ws"
    shutil.copytree(finished[0], found)
    return found


@pytest.fixture(scope="module")
def trained(trademl, workspace) -> dict:
    done = trademl("train", "--network", "--workspace", workspace, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_network_becomes_an_artifact_that_predicts(trained, workspace):
    store = ArtifactStore(workspace / "artifacts")
    network = store.get(trained["id"])
    model = load_network(network.file("model.tar.gz"))
    rows = load_split(store.newest("dataset"), "validation")

    score_N, _ = model.predict(rows.features_ND)
    assert np.isfinite(score_N).all()
    assert (model.kind, model.schema_hash) == (trained["kind"], trained["schema_hash"])
    assert set(network.manifest["files"]) == {"model.tar.gz", "history.json"}


def test_a_trained_network_is_not_trained_again(trained, trademl, workspace):
    done = trademl("train", "--network", "--workspace", workspace, "--json")

    assert f"kept {trained['id']}" in done.stderr
    assert json.loads(done.stdout) == trained


def test_partitions_that_no_process_can_hold_are_one_line(trademl, workspace, tmp_path):
    block = tmp_path / "diana.py"
    block.write_text(
        "distribution={'smdistributed': {'modelparallel': {'enabled': True, 'parameters': "
        "{'partitions': 2, 'microbatches': 8, 'ddp': True}}}, "
        "'mpi': {'enabled': True, 'processes_per_host': 1}},"
    )

    done = trademl("train", "--distribution", block, "--workspace", workspace)

    assert done.returncode == 1
    assert "(--nproc) to 2 or another multiple of 2" in one_line(done)


def test_a_plan_for_devices_that_are_not_here(trademl, workspace):
    arguments = ("--explain-plan", "--nproc", "8", "--device-memory", "80", "--json")
    done = trademl("train", *arguments, "--workspace", workspace)

    found = json.loads(done.stdout)
    assert found["measured"] is None
    assert found["chosen"]["dp"] * found["chosen"]["pp"] == 8
    assert all(candidate["fits"] for candidate in found["candidates"])


def test_hyperparameters_of_linear_learner_are_not_a_networks(trademl, workspace):
    done = trademl("train", "--network", "--hp", "wd=1", "--workspace", workspace)

    assert done.returncode == 2
    assert "--hp is for Linear Learner" in done.stderr
