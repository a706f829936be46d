"""Alice on recordings beside the project, with fewer orders and trials than her files ask for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import trademl

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "alice": "k3_es_1min_trades_20131006_11.parquet",
    "alice_btcperp": "k3_btcperp_ftx_1min_202201.parquet",
}


def brief_tuning() -> dict:
    job = json.loads((EXAMPLES / "alice_tuning.json").read_text())
    job["StaticHyperParameters"]["epochs"] = "3"
    job["ResourceLimits"] = {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2}
    return job


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_a_recording_of_bars_goes_through_to_the_report(tmp_path, name):
    if not (EXAMPLES.parents[1] / "shared" / "data" / NEEDS[name]).exists():
        pytest.skip(f"{NEEDS[name]} is not beside the project")
    settings = trademl.load_settings(
        EXAMPLES / f"{name}.toml",
        workspace=tmp_path,
        flags={"orders.interval_s": 600, "tuning": brief_tuning()},
        environ={},
    )
    with trademl.Workspace(settings.workspace) as workspace:
        result = trademl.run(settings.strategy, workspace)
    assert result["gate"]["headline"] == "no edge after costs"
    assert result["dataset"]["labels"]["bars"]["doubtful_share"] < 0.01
    assert result["dataset"]["feature_dim"] == 36
    backtest = result["backtest"]
    assert backtest["engines"] == ["bars"]
    assert set(backtest["benchmarks"]) == {"always_in", "buy_and_hold", "random_entry"}
    assert backtest["baseline"]["n_trades"] >= backtest["n_trades"]
    assert Path(result["report"]["id"]).is_file()
