"""The demo on real recordings; those that are not ours to ship are looked for beside the project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from running import artifact_ids, one_line

DATA = Path(__file__).parents[3] / "shared" / "data"


def demo(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trademl", "demo", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def recording(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not beside the project")
    return DATA / name


def test_the_bundled_sample_gives_the_same_ids_and_metrics_twice(tmp_path):
    first, second = (
        json.loads(demo("--workspace", tmp_path / name, "--json").stdout) for name in ("a", "b")
    )
    assert artifact_ids(first) == artifact_ids(second)
    first, second = (
        {k: v for k, v in r.items() if k not in ("report", "ledger")} for r in (first, second)
    )
    assert first == second
    assert first["dataset"]["feature_dim"] == 605
    assert first["batch"]["n_placed_in_recording"] > 10_000
    assert first["batch"]["median_spread"] == 0.25


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("k1x_xauusd_oanda_1s_quotes_20140501_06.parquet", []),
        ("k1_btcusd_bitstamp_20150501_quotes.parquet", []),
        ("k3_es_ticks_20130901_03.parquet", ["--tz", "America/Chicago", "--tick-size", "0.25"]),
    ],
)
def test_a_recording_of_ticks_runs(tmp_path, name, more):
    done = demo("--quotes", recording(name), *more, "--workspace", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert all(entry["id"] for entry in result.values())
    assert result["batch"]["median_stop_loss"] >= 2 * result["batch"]["median_spread"] - 1e-9


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("k1_btcusd_bitstamp_20150501_trades.parquet", "too short or too sparse"),
        ("k1_btcusd_coinbase_1s_trades_20161007_08.parquet", "holds bars"),
        ("k1_btcusd_coinbase_60s_quotes_20161007_08.parquet", "every 60 s"),
        ("k1_btcusdt_binancefut_1s_20240610.parquet", "holds bars"),
        ("k2_fx_gold_oanda_hourly_2006_2019.parquet", "holds 3 instruments"),
        ("k2_us_equity_hourly_1998_2021.parquet", "holds 6 instruments"),
        ("k3_btcperp_ftx_1min_202201.parquet", "holds bars"),
        ("k3_es_1min_quotes_20131006_11.parquet", "holds 5 instruments"),
        ("k3_es_1min_trades_20131006_11.parquet", "holds 5 instruments"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(tmp_path, name, reason):
    done = demo(
        "--quotes", recording(name), "--tz", "UTC", "--tick-size", "0.01", "--workspace", tmp_path
    )
    assert done.returncode == 1
    assert reason in one_line(done)
