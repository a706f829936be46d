"""A small project: a recording of an hour and a half, and a strategy that trains in a moment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_cases import random_walk

STRATEGY = """
name = "small"
seed = 3
tuning = "tuning.json"
[feed]
quotes = "quotes.parquet"
instrument = "TEST"
[orders]
interval_s = 2
barrier_unit = "price"
take_profit = 1.0
stop_loss = 1.0
time_limit_s = 60
export_after = 2000
[costs]
fee_per_unit = 0.05
[features]
lags = [{ number = 60 }]
[serving]
endpoint = "small"
shadow_refused = true
"""
TUNING = {
    "StaticHyperParameters": {"predictor_type": "binary_classifier", "epochs": "3"},
    "ParameterRanges": {
        "ContinuousParameterRanges": [
            {"Name": "wd", "MinValue": "1e-7", "MaxValue": "1", "ScalingType": "Logarithmic"},
            {"Name": "l1", "MinValue": "1e-7", "MaxValue": "1", "ScalingType": "Logarithmic"},
        ]
    },
    "HyperParameterTuningJobObjective": {
        "MetricName": "validation:roc_auc_score",
        "Type": "Maximize",
    },
    "Strategy": "Bayesian",
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 2},
}

Trademl = Callable[..., subprocess.CompletedProcess[str]]


def write_recording(path: Path, quotes) -> None:
    times = pa.array(quotes.ts_event).cast(pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"time": times, "bid": quotes.bid, "ask": quotes.ask}), path)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_recording(folder / "quotes.parquet", random_walk(6000, seed=5))
    (folder / "strategy.toml").write_text(STRATEGY)
    (folder / "tuning.json").write_text(json.dumps(TUNING))
    return folder


@pytest.fixture(scope="session")
def trademl(project: Path) -> Trademl:
    """Run the command line in the project's folder, in a process of its own."""

    def run(*words: str | Path, **more) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trademl", *map(str, words)]
        return subprocess.run(
            command, cwd=project, capture_output=True, text=True, timeout=600, **more
        )

    return run


@pytest.fixture(scope="session")
def finished(trademl: Trademl, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Return the workspace of one unbroken run, and what it printed.

    Every file of tests shares it: whoever changes a workspace takes a copy.
    """
    workspace = tmp_path_factory.mktemp("finished") / "ws"
    done = trademl("run", "--workspace", workspace, "--json")
    assert done.returncode == 0, done.stderr
    return workspace, json.loads(done.stdout)
