"""The loop step by step through the command line, as a user who wants to look at each part."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from running import one_line
from trademl import load_model, load_split, read_recordio
from trademl.serve.client import ping
from trademl.store.artifacts import ArtifactStore


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("verbs") / "ws"


@pytest.fixture(scope="module")
def steps(trademl, workspace):
    """Run every step in order and return what each printed."""

    def result(*words):
        done = trademl(*words, "--workspace", workspace, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return {
        "replay": result("ingest", "replay"),
        "export": result("ingest", "export"),
        "status": result("ingest", "status"),
        "features": result("features", "build"),
        "tune": result("tune"),
        "select": result("models", "select"),
        "evaluate": result("models", "evaluate"),
        "unproven": trademl("deploy", "local", "--workspace", workspace),
        "verify": result("features", "verify", "--all"),
        "inspect": result("features", "inspect"),
        "deploy": result("deploy", "local"),
        "backtest": result("backtest", "run"),
    }


def test_steps_give_the_ids_of_an_unbroken_run(steps, finished):
    run = finished[1]
    assert steps["export"]["id"] == run["batch"]["id"]
    assert steps["features"]["id"] == run["dataset"]["id"]
    assert steps["tune"]["id"] == run["tuning"]["id"]
    assert steps["select"]["id"] == run["selected"]["id"]
    assert steps["deploy"]["id"] == run["deployment"]["id"]
    assert steps["evaluate"] == run["evaluation"]
    assert steps["backtest"] == run["backtest"]


def test_a_model_of_an_unproven_dataset_is_not_deployed(steps):
    assert steps["unproven"].returncode == 1
    assert f"trademl features verify {steps['features']['id']}" in one_line(steps["unproven"])


def test_verify_makes_every_row_again(steps):
    splits = steps["features"]["splits"].values()
    assert steps["verify"]["is_proven"]
    assert steps["verify"]["n_rows"] == sum(split["rows"] for split in splits)


def test_a_dataset_that_failed_its_proof_is_not_deployed(steps, trademl, workspace, tmp_path):
    other = tmp_path / "ws"
    shutil.copytree(workspace, other)
    with sqlite3.connect(other / "ledger.db") as ledger:
        ledger.execute(
            "UPDATE proofs SET is_proven = 0, evidence = json_set(evidence, '$.faults[0]', 'F')"
        )
    done = trademl("deploy", "local", "--workspace", other)
    assert done.returncode == 1
    assert "failed its leak proof, so its models cannot be deployed: F" in one_line(done)


def test_inspect_says_how_much_labels_overlap(steps):
    for split in steps["inspect"]["splits"].values():
        assert 0 < split["uniqueness"] < 0.2  # an order every 2 s lives for up to a minute
    assert steps["inspect"]["first_rows"][0]["order_id"] >= 0


def test_status_lists_what_is_there(steps):
    assert steps["status"]["recordings"][0]["n_quotes"] == 6000
    assert steps["status"]["batches"][0]["id"] == steps["export"]["id"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_dataset_in_another_format_has_the_same_cells(steps, trademl, workspace, kind):
    done = trademl(
        "features", "build", steps["export"]["id"], "--format", kind, "--workspace", workspace,
        "--json",
    )  # fmt: skip
    store = ArtifactStore(workspace / "artifacts")
    other, plain = (
        load_split(store.get(i), "test")
        for i in (json.loads(done.stdout)["id"], steps["features"]["id"])
    )
    np.testing.assert_array_equal(other.features_ND, plain.features_ND)
    np.testing.assert_array_equal(other.label_N, plain.label_N)


def test_train_with_given_hyperparameters(steps, trademl, workspace):
    done = trademl(
        "train", steps["features"]["id"], "--hp", "wd=0.01", "--workspace", workspace, "--json"
    )
    (trial,) = json.loads(done.stdout)["trials"]
    assert trial["hyperparameters"]["wd"] == "0.01"
    assert trial["hyperparameters"]["epochs"] == "3"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--hp", "wdd=0.01"], "wd"),
        (["train", "--hp", "wd"], "expected NAME=VALUE"),
        (["tune", "dataset-nothing"], "no artifact dataset-nothing"),
        (["serve", "--endpoint", "nowhere"], "known endpoints: small"),
    ],
)
def test_wrong_words_are_one_line(steps, trademl, workspace, words, message):
    done = trademl(*words, "--workspace", workspace)
    assert done.returncode == 1
    assert message in one_line(done)


def test_an_empty_workspace_says_what_to_do_first(trademl, tmp_path):
    for words in (
        ["ingest", "export"],
        ["features", "build"],
        ["tune"],
        ["report"],
        ["features", "verify"],
    ):
        done = trademl(*words, "--workspace", tmp_path)
        assert done.returncode == 1
        one_line(done)


def test_serve_answers_and_predict_prints_what_the_model_scores(
    steps, trademl, workspace, project, tmp_path
):
    command = [sys.executable, "-m", "trademl", "serve", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--workspace", str(workspace)], cwd=project, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        url = server.stderr.readline().split()[-1]
        folder = workspace / "artifacts" / "dataset" / steps["features"]["id"]
        done = trademl("predict", folder / "test.recordio", "--url", url, "--json")
        answers = json.loads(done.stdout)
        features_ND, _ = read_recordio(folder / "test.recordio")
        np.savetxt(tmp_path / "rows.csv", features_ND[:3], delimiter=",", fmt="%.9g")
        by_csv = json.loads(
            trademl("predict", tmp_path / "rows.csv", "--url", url, "--json").stdout
        )
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(120) == 0
    model = load_model(workspace / "artifacts" / "model" / steps["select"]["id"] / "model.tar.gz")
    scores = [p["score"] for p in answers["predictions"]]
    np.testing.assert_allclose(scores, model.scores(features_ND), rtol=1e-6)
    assert [p["score"] for p in by_csv["predictions"]] == scores[:3]
    assert answers["id"] == steps["select"]["id"]
    assert answers["status"] == steps["select"]["status"] == "refused"
    assert answers["reasons"]


def test_a_ladder_and_models_over_http_are_served_from_the_command_line(
    steps, workspace, project, tmp_path
):
    model = steps["select"]["id"]
    folder = workspace / "artifacts" / "model" / model
    command = [sys.executable, "-m", "trademl", "serve", "--port", "0"]
    for words, said in (
        (["--smaller", model, "--workspace", str(workspace)], f"{model} (shadow, refused, 1 small"),
        (["--models", str(folder)], f"serving {folder} at http"),
    ):
        server = subprocess.Popen(
            [*command, *words], cwd=project, stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            assert said in line
            ping(line.split()[-1])
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(120) == 0


def test_predict_without_a_server_is_one_line(trademl, tmp_path):
    (tmp_path / "rows.csv").write_text("1,2\n")
    done = trademl("predict", tmp_path / "rows.csv", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    one_line(done)
    (tmp_path / "rows.csv").write_text("a,b\n")
    assert "expected numbers" in one_line(trademl("predict", tmp_path / "rows.csv"))


def test_a_loaded_model_needs_no_torch(steps, workspace):
    path = workspace / "artifacts" / "model" / steps["select"]["id"] / "model.tar.gz"
    code = (
        f"import sys, trademl; m = trademl.load_model(__import__('pathlib').Path({str(path)!r}));"
        "print('torch' in sys.modules, len(m.weights_D))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout.split() == ["False", "65"]
