"""The original demo's files through the command line, without a workspace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from original_cases import original_deals, original_ticks, write_rows
from running import one_line
from trademl import read_recordio


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    ticks = original_ticks(7000, step=2.0)
    write_rows(folder / "price-1.csv", ticks)
    write_rows(folder / "deals-1.csv", original_deals(ticks))
    return folder


def build(folder: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trademl", "features", "build", *map(str, more)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


FILES = ("--prices", "price-1.csv", "--transactions", "deals-1.csv")


def test_a_dataset_and_nothing_else_is_made(folder):
    done = build(folder, *FILES, "--out", "dataset", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["feature_dim"] == 605
    assert result["labels"]["source"] == "recomputed"
    assert result["labels"]["disagree_share"] > 0.3
    assert result["id"] == json.loads((folder / "dataset" / "manifest.json").read_text())["id"]
    features_ND, _ = read_recordio(folder / "dataset" / "train.recordio")
    assert features_ND.shape == (result["splits"]["train"]["rows"], 605)
    assert sorted(p.name for p in folder.iterdir() if p.name != "recorded") == [
        "dataset", "deals-1.csv", "price-1.csv",
    ]  # fmt: skip


def test_recorded_labels_are_kept_when_asked(folder):
    done = build(folder, *FILES, "--out", "recorded", "--labels", "recorded", "--json")
    assert json.loads(done.stdout)["labels"]["source"] == "recorded"
    assert 0.3 < json.loads(done.stdout)["label_rate"] < 0.7


@pytest.mark.parametrize("words", [FILES, ("--out", "x"), (*FILES, "--out", "x", "batch-1")])
def test_options_that_do_not_go_together_are_wrong_usage(folder, words):
    done = build(folder, *words)
    assert done.returncode == 2
    assert "go together" in done.stderr


def test_a_bad_line_is_one_line(folder, tmp_path):
    text = (folder / "deals-1.csv").read_text().replace('"buy"', '"hold"', 1)
    (tmp_path / "deals-2.csv").write_text(text)
    files = ("--prices", folder / "price-1.csv", "--transactions", "deals-2.csv")
    done = build(tmp_path, *files, "--out", "dataset")
    assert done.returncode == 1
    assert "deals-2.csv: line 1: type is 'hold', expected buy or sell" in one_line(done)
    assert not (tmp_path / "dataset").exists()


def test_a_folder_is_inspected_where_it_lies(folder):
    build(folder, *FILES, "--out", "dataset", "--json")
    command = [sys.executable, "-m", "trademl", "features", "inspect", "dataset", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["uniqueness"] > 0
    assert not (folder / "trademl-workspace").exists()


def test_a_dataset_of_a_folder_goes_all_the_way(trademl, finished, tmp_path):
    batch = next((finished[0] / "artifacts" / "batch").iterdir())
    out, workspace = tmp_path / "out", tmp_path / "ws"

    def result(*words):
        done = trademl(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    files = ("--prices", batch / "prices.csv", "--transactions", batch / "transactions.csv")
    built = result("features", "build", *files, "--out", out)
    here = ("--workspace", workspace)
    assert result("features", "verify", out, *here)["is_proven"]
    study = result("train", built["id"], "--hp", "epochs=1", *here)
    model = result("models", "select", study["id"], *here)
    assert result("backtest", "run", model["id"], *here)["n_signals"] > 0


def test_a_spoiled_folder_is_not_proven(folder, tmp_path):
    build(folder, *FILES, "--out", tmp_path / "out")
    path = tmp_path / "out" / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    command = [sys.executable, "-m", "trademl", "features", "verify", tmp_path / "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert "rows.parquet is not the file that its manifest lists" in one_line(done)
