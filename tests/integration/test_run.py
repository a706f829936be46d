"""The pipeline as real processes: killed anywhere, run again, run twice, run at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from running import artifact_ids, one_line

STEPS = ("ingest", "features", "verify", "tune", "select", "predict", "backtest", "report")
KEYS = {
    "batch", "dataset", "tuning", "selected", "gate", "deployment", "evaluation", "backtest",
    "report", "ledger",
}  # fmt: skip


def start(project: Path, workspace: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trademl", "run", "--workspace", str(workspace)]
    return subprocess.Popen(
        command, cwd=project, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def wait_for_step(process: subprocess.Popen[str], step: str) -> bool:
    assert process.stderr is not None
    return any(line.startswith(step) and "..." in line for line in process.stderr)


def test_result_has_every_key_with_an_id(finished):
    _, result = finished
    assert set(result) == KEYS
    assert all(entry["id"] for entry in result.values())
    assert Path(result["report"]["id"]).is_file()
    assert Path(result["ledger"]["id"]).is_file()


def test_killed_at_every_step_it_ends_with_the_same_ids(project, trademl, finished, tmp_path):
    workspace = tmp_path / "ws"
    for step in STEPS:
        process = start(project, workspace)
        assert wait_for_step(process, step), f"no step {step}"
        process.kill()
        process.wait()
    done = trademl("run", "--workspace", workspace, "--json")
    assert done.returncode == 0, done.stderr
    assert artifact_ids(json.loads(done.stdout)) == artifact_ids(finished[1])


def test_killed_between_trials_it_ends_with_the_same_trials(project, trademl, finished, tmp_path):
    workspace = tmp_path / "ws"
    process = start(project, workspace)
    deadline = time.monotonic() + 300
    while not list(workspace.glob("artifacts/.drafts/study-*/trial-*02*")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "the search ended before it could be killed"
        time.sleep(0.002)
    process.kill()
    process.wait()
    done = json.loads(trademl("run", "--workspace", workspace, "--json").stdout)
    assert done["tuning"]["trials"] == finished[1]["tuning"]["trials"]


def test_a_second_run_changes_nothing(trademl, finished):
    workspace, result = finished
    files = {p: p.stat().st_mtime_ns for p in workspace.glob("artifacts/*/*/*")}
    again = json.loads(trademl("run", "--workspace", workspace, "--json").stdout)
    assert again == result
    assert {p: p.stat().st_mtime_ns for p in workspace.glob("artifacts/*/*/*")} == files


def test_another_workspace_gives_the_same_metrics(trademl, finished, tmp_path):
    other = json.loads(trademl("run", "--workspace", tmp_path / "ws", "--json").stdout)
    for name in KEYS - {"report", "ledger"}:
        assert other[name] == finished[1][name], name


def test_another_seed_gives_another_study(trademl, finished, project, tmp_path):
    other = tmp_path / "other.toml"
    text = (project / "strategy.toml").read_text().replace("seed = 3", "seed = 4")
    other.write_text(text.replace('"quotes.parquet"', f'"{project}/quotes.parquet"'))
    (tmp_path / "tuning.json").write_text((project / "tuning.json").read_text())
    workspace, result = tmp_path / "ws", finished[1]
    shutil.copytree(finished[0], workspace)
    done = json.loads(trademl("run", "--config", other, "--workspace", workspace, "--json").stdout)
    assert done["dataset"]["id"] == result["dataset"]["id"]
    assert done["tuning"]["id"] != result["tuning"]["id"]


def test_two_runs_cannot_overlap(trademl, tmp_path):
    (tmp_path / "ws").mkdir()
    with FileLock(tmp_path / "ws" / "run.lock"):
        done = trademl("run", "--workspace", tmp_path / "ws")
    assert done.returncode == 1
    assert "in use by another run" in one_line(done)


def test_ctrl_c_exits_with_130_in_one_line(project, tmp_path):
    process = start(project, tmp_path / "ws")
    assert wait_for_step(process, "tune")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    rows = sqlite3.connect(tmp_path / "ws" / "ledger.db").execute("SELECT status FROM runs")
    assert rows.fetchall() == [("interrupted",)]


def test_the_ledger_leads_from_a_trade_to_its_ticks(finished):
    _, result = finished
    query = """
        SELECT count(*), min(batches.recording_id) FROM trades
        JOIN backtests ON backtests.id = trades.backtest_id
        JOIN deployments ON deployments.id = backtests.deployment_id
        JOIN models ON models.id = deployments.model_id
        JOIN tuning_trials ON tuning_trials.study_id = models.study_id
            AND tuning_trials.number = models.trial_number
        JOIN tuning_studies ON tuning_studies.id = tuning_trials.study_id
        JOIN datasets ON datasets.id = tuning_studies.dataset_id
        JOIN batches ON batches.id = datasets.batch_id
        JOIN predictions ON predictions.deployment_id = deployments.id
            AND predictions.order_id = trades.order_id
        WHERE trades.backtest_id = ?
    """
    database = sqlite3.connect(result["ledger"]["id"])
    count, recording = database.execute(query, [result["backtest"]["id"]]).fetchone()
    assert count == result["backtest"]["n_trades"] > 0
    assert recording.startswith("recording-")


def test_the_report_is_self_contained_and_opens_with_the_verdict(finished):
    html = Path(finished[1]["report"]["id"]).read_text()
    body = html[html.index("<body>") :]
    assert body.splitlines()[1].endswith(f"{finished[1]['selected']['verdict']}</h1>")
    assert "<script" not in html
    assert "src=" not in html.replace("xmlns", "")
    assert "<link" not in html
    assert body.count("<svg") == 3


def test_all_refused_without_shadow_the_champion_stays_and_the_run_succeeds(
    trademl, finished, tmp_path, project
):
    environment = {
        "PATH": "/usr/bin:/bin",
        "TRADEML_SERVING__SHADOW_REFUSED": "false",
        "TRADEML_SELECTION__MIN_RECALL": "1.0",
    }
    done = trademl("run", "--workspace", tmp_path / "ws", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["selected"]["verdict"] == "no edge after costs"
    assert [result[n]["id"] for n in ("deployment", "evaluation", "backtest")] == [None] * 3
    assert "no edge after costs" in Path(result["report"]["id"]).read_text()


def test_a_workspace_of_a_newer_schema_is_refused(trademl, tmp_path):
    trademl("ingest", "status", "--workspace", tmp_path / "ws")
    with sqlite3.connect(tmp_path / "ws" / "ledger.db") as database:
        database.execute("UPDATE trademl_version SET version_num = '9999'")
    done = trademl("run", "--workspace", tmp_path / "ws")
    assert done.returncode == 1
    assert "upgrade trademl" in one_line(done)


def test_a_damaged_ledger_is_named(trademl, tmp_path):
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "ledger.db").write_bytes(b"rubbish" * 1000)
    done = trademl("run", "--workspace", tmp_path / "ws")
    assert done.returncode == 1
    assert "ledger.db" in one_line(done)


def test_a_damaged_artifact_is_named(trademl, finished, tmp_path, project):
    workspace = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(finished[0]), str(workspace)], check=True)
    (records,) = workspace.glob("artifacts/dataset/*/train.recordio")
    records.write_bytes(records.read_bytes()[:-100])
    done = trademl("run", "--workspace", workspace)
    assert done.returncode == 1
    assert "train.recordio" in one_line(done)


@pytest.mark.parametrize("size", ["400k", "1200k", "2m"])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(trademl, finished, tmp_path, size):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs root")
    try:
        done = trademl("run", "--workspace", disk / "ws")
        assert done.returncode == 1
        assert "free some space" in one_line(done)
        assert not list(disk.glob("ws/artifacts/*/*/*.part"))
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        result = json.loads(trademl("run", "--workspace", disk / "ws", "--json").stdout)
        assert artifact_ids(result) == artifact_ids(finished[1])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_random_split_warns_and_is_not_deployed(trademl, tmp_path):
    workspace = tmp_path / "ws"
    environ = {**os.environ, "TRADEML_SPLIT__METHOD": "random"}
    done = trademl("run", "--workspace", workspace, env=environ)
    built = trademl("features", "build", "--workspace", workspace, env=environ)
    result = json.loads(
        trademl("features", "build", "--workspace", workspace, "--json", env=environ).stdout
    )

    (warning,) = result["warnings"]
    assert "split.method is random" in warning
    assert f"WARNING: {warning}" in built.stdout
    assert done.returncode == 1
    assert "rows of train reach into the first of validation" in one_line(done)
    assert result["dropped"]["purged"] == 0
