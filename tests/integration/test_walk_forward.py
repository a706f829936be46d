"""A walk-forward over simulated noise: no edge is found in it, and a kill changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from trademl.backtest.walk_forward import backtest_walk_forward
from trademl.config import load_settings
from trademl.errors import DataError
from trademl.ingest.replay import export, replay
from trademl.ingest.simulated import SimulatedMarket, write_simulation
from trademl.ledger import tables
from trademl.monitor.tear_sheet import write_tear_sheet
from trademl.pipeline.strategy import learn_settings
from trademl.pipeline.workspace import Workspace

STRATEGY = """
name = "noise"
tuning = "tuning.json"
[feed]
quotes = "noise.parquet"
[orders]
interval_s = 10
barrier_unit = "price"
take_profit = 1.0
stop_loss = 1.0
time_limit_s = 300
export_after = 100000
[costs]
fee_per_unit = 0.01
[features]
quote_columns = []
spread = true
lags = [{ number = 6, spacing_s = 10 }]
[walk_forward]
learn = 700
trade = 250
"""
TUNING = {
    "StaticHyperParameters": {"predictor_type": "binary_classifier", "epochs": "2"},
    "ParameterRanges": {
        "ContinuousParameterRanges": [
            {"Name": "wd", "MinValue": "1e-7", "MaxValue": "0.01", "ScalingType": "Logarithmic"}
        ]
    },
    "HyperParameterTuningJobObjective": {
        "MetricName": "validation:roc_auc_score", "Type": "Maximize",
    },
    "Strategy": "Random",
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    (folder / "strategy.toml").write_text(STRATEGY)
    (folder / "tuning.json").write_text(json.dumps(TUNING))
    market = SimulatedMarket(n_quotes=12_000, spread_ticks=0.2, signal_s=60.0)
    write_simulation(folder / "noise.parquet", market)
    return folder


def ingested(folder: Path, name: str) -> Workspace:
    workspace = Workspace(folder / name)
    strategy = load_settings(folder / "strategy.toml", environ={}).strategy
    recording = replay(strategy.feed, workspace.ticks)
    export(
        recording, workspace.ticks, strategy.orders, strategy.costs, workspace.store,
        workspace.ledger, max_delay_s=strategy.health.max_delay_s,
    )  # fmt: skip
    return workspace


def walked(folder: Path, workspace: Workspace, **walk):
    strategy = load_settings(folder / "strategy.toml", environ={}).strategy
    strategy = replace(strategy, walk_forward=replace(strategy.walk_forward, processes=1, **walk))
    return backtest_walk_forward(
        workspace.store.newest("batch"), learn_settings(strategy), strategy.gate,
        strategy.backtest, workspace.store, workspace.ledger,
    )  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(folder):
    with ingested(folder, "unbroken") as workspace:
        found = walked(folder, workspace)
        windows = workspace.ledger.rows(tables.WalkWindow)
        looks = workspace.ledger.rows(tables.Look)
        again = walked(folder, workspace)
        page = write_tear_sheet(None, workspace.store, folder / "reports")
        points = workspace.ledger.rows(tables.Equity, backtest_id=found.id)
        yield {
            "found": found, "again": again, "windows": windows, "looks": looks,
            "page": page, "points": points,
        }  # fmt: skip


def test_noise_is_no_edge(unbroken):
    assert unbroken["found"].metrics["headline"].startswith("no edge after costs")


def test_a_window_that_does_not_pass_the_gate_trades_nothing(unbroken):
    windows = unbroken["found"].metrics["windows"]
    refused = [one for one in windows if one["verdict"] != "promote"]
    assert refused
    assert all((one["n_trades"], one["pnl"]) == (0, 0.0) for one in refused)


def test_what_was_not_gated_is_told_beside(unbroken):
    metrics = unbroken["found"].metrics
    by_window = sum(one["ungated_n_trades"] for one in metrics["windows"])
    assert metrics["ungated"]["n_trades"] == by_window > 0


def test_each_window_has_a_row_with_its_model_and_verdict(unbroken):
    told = unbroken["found"].metrics["windows"]
    rows = unbroken["windows"]
    assert [(r.number, r.model_id, r.verdict) for r in rows] == [
        (one["number"], one["model"], one["verdict"]) for one in told
    ]


def test_its_account_is_a_backtest_of_the_ledger_and_has_a_tear_sheet(unbroken):
    page = unbroken["page"].read_text()
    assert unbroken["page"].name == f"{unbroken['found'].id}.html"
    assert unbroken["found"].metrics["headline"] in page
    assert len(unbroken["points"]) > 0


def test_a_look_reaches_to_the_end_of_what_its_model_traded(unbroken):
    traded_to = {one["traded_to_ns"] for one in unbroken["found"].metrics["windows"]}
    assert all(look.to_ns in traded_to for look in unbroken["looks"])


def test_a_second_walk_changes_nothing(unbroken):
    assert unbroken["again"].manifest == unbroken["found"].manifest


def test_windows_too_short_to_split_are_told_and_trade_nothing(folder):
    with ingested(folder, "short") as workspace:
        found = walked(folder, workspace, learn=30, trade=500).metrics
    assert {one["verdict"] for one in found["windows"]} == {"untrained"}
    assert found["headline"].startswith("no edge after costs: no model of")
    assert found["n_trades"] == found["ungated"]["n_trades"] == 0


def test_a_walk_longer_than_the_batch_is_refused(folder):
    with ingested(folder, "long") as workspace, pytest.raises(DataError, match="too few for one"):
        walked(folder, workspace, learn=5000, trade=500)


@pytest.mark.slow
def test_a_killed_walk_leaves_no_process_and_ends_as_an_unbroken_one(folder, unbroken):
    ingested(folder, "killed").__exit__()
    line = [
        sys.executable, "-m", "trademl", "backtest", "walk-forward", "--processes", "2",
        "--workspace", "killed", "--json",
    ]  # fmt: skip
    begun = subprocess.Popen(line, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE)
    models = folder / "killed" / "artifacts" / ".windows" / "model"
    deadline = time.monotonic() + 120
    while not list(models.glob("*/manifest.json")) and time.monotonic() < deadline:
        assert begun.poll() is None
        time.sleep(0.05)
    workers = children(begun.pid)
    begun.send_signal(signal.SIGKILL)
    begun.communicate()
    assert workers
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    expected = unbroken["found"]
    assert json.loads(done.stdout) == {"id": expected.id, **expected.metrics}


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text() and _exists(pid)
    return False


def _exists(pid: int) -> bool:
    os.kill(pid, 0)
    return True
