"""A planted edge through the command line: promoted, held beside the champion, taken back."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from running import one_line

STRATEGY = """
name = "sim"
tuning = "tuning.json"
[feed]
quotes = "sim.parquet"
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
[serving]
endpoint = "sim"
"""
TUNING = {
    "StaticHyperParameters": {
        "predictor_type": "binary_classifier", "epochs": "3", "mini_batch_size": "300",
        "binary_classifier_model_selection_criteria": "precision_at_target_recall",
        "target_recall": "0.6",
    },
    "ParameterRanges": {
        "ContinuousParameterRanges": [
            {"Name": "wd", "MinValue": "1e-7", "MaxValue": "0.01", "ScalingType": "Logarithmic"}
        ]
    },
    "HyperParameterTuningJobObjective": {
        "MetricName": "validation:precision", "Type": "Maximize",
    },
    "Strategy": "Random",
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 3},
}  # fmt: skip


def command(folder, *words):
    line = [sys.executable, "-m", "trademl", *map(str, words)]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=900)


def answer(folder, *words):
    done = command(folder, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sim")
    (folder / "strategy.toml").write_text(STRATEGY)
    (folder / "tuning.json").write_text(json.dumps(TUNING))
    market = ["--quotes", "40000", "--edge", "0.25", "--spread-ticks", "0.2", "--signal-s", "60"]
    answer(folder, "ingest", "simulate", "--out", "sim.parquet", *market)
    return folder


@pytest.fixture(scope="module")
def story(folder):
    """Promote one model, force a second, take it back, and run again after each."""
    told = {"first": answer(folder, "run")}
    told["again"] = answer(folder, "run")
    told["retrained"] = answer(folder, "train", "--hp", "wd=0.02", "--hp", "learning_rate=0.03")
    told["selected"] = answer(folder, "models", "select", told["retrained"]["id"])
    told["gated"] = answer(folder, "models", "gate", told["selected"]["id"])
    told["refused"] = command(folder, "models", "promote", told["selected"]["id"])
    told["listed"] = answer(folder, "models", "list")
    told["forced"] = answer(
        folder, "models", "promote", told["selected"]["id"], "--force", "a drill"
    )
    told["rolled"] = answer(folder, "models", "rollback", "--reason", "the drill is over")
    told["at_the_start"] = command(folder, "models", "rollback")
    told["card"] = answer(folder, "models", "show", told["first"]["selected"]["id"])
    told["after"] = answer(folder, "models", "gate", told["selected"]["id"])
    told["end"] = answer(folder, "models", "list")
    return told


def test_a_planted_edge_is_promoted_and_live(story):
    first = story["first"]
    assert (first["gate"]["verdict"], first["gate"]["headline"]) == ("promote", "promoted")
    assert first["deployment"]["mode"] == "live"


def test_a_second_run_changes_nothing(story):
    assert story["again"] == story["first"]


def test_a_retrained_model_on_the_same_span_is_held_beside_the_champion(story):
    gated, champion = story["gated"], story["first"]["selected"]["id"]
    assert (gated["verdict"], gated["has_edge"]) == ("hold", True)
    assert gated["champion"] == champion
    assert (
        f"0 test orders are later than all data of the champion {champion}" in (gated["reasons"][0])
    )
    assert story["listed"]["strategies"][0]["challenger"] == story["selected"]["id"]


def test_looks_of_the_first_run_count_against_the_second(story):
    # three trials at the calibrated threshold; then evaluated at 0.5 and 0.75 too: 3 x 3; plus a
    # job that trained 32 models
    assert story["first"]["gate"]["figures"]["n_tried"] == 3
    assert story["gated"]["figures"]["n_tried"] == 3 * 3 + 32


def test_a_held_model_is_not_promoted_without_force(story):
    assert story["refused"].returncode == 1
    assert "is hold (0 test orders" in one_line(story["refused"])
    assert story["forced"]["how"] == "forced"
    assert story["forced"]["why"] == "a drill"


def test_rollback_puts_the_first_model_live_again(story, folder):
    first = story["first"]["selected"]["id"]
    assert (story["rolled"]["id"], story["rolled"]["why"]) == (first, "the drill is over")
    ledger = sqlite3.connect(folder / "trademl-workspace" / "ledger.db")
    live = "SELECT model_id FROM deployments WHERE mode = 'live' AND retired_at IS NULL"
    assert ledger.execute(live).fetchall() == [(first,)]
    assert "no earlier champion" in one_line(story["at_the_start"])


def test_the_gate_remembers_what_was_taken_back(story):
    assert story["after"]["verdict"] == "hold"
    assert "(the drill is over): promote it by hand" in story["after"]["reasons"][-1]


def test_the_whole_history_is_listed(story):
    (strategy,) = story["end"]["strategies"]
    assert [r["how"] for r in strategy["history"]] == ["gate", "forced", "rollback"]
    assert [r["to_at"] is None for r in strategy["history"]] == [False, False, True]


def test_a_card_says_data_costs_figures_verdict_and_limits(story):
    card = story["card"]
    assert card["costs"]["fee_per_unit"] == 0.01
    assert card["gates"][0]["verdict"] == "promote"
    assert card["gates"][0]["figures"]["precision_lower_bound"] < 1
    assert [r["how"] for r in card["reigns"]] == ["gate", "rollback"]
    assert any("other regimes" in limit for limit in card["limits"])


def test_the_report_shows_what_the_gate_looked_at(story):
    from pathlib import Path

    html = Path(story["first"]["report"]["id"]).read_text()
    assert "promoted</h1>" in html
    assert "luck alone reaches a Sharpe ratio" in html


@pytest.fixture(scope="module")
def replayed(story, folder):
    """Replay the champion as if the second model had been live for the first half of its rows."""
    first, second = story["first"]["selected"]["id"], story["selected"]["id"]
    told = {"unknown": answer(folder, "backtest", "replay", first)["serving"]}
    ledger = sqlite3.connect(folder / "trademl-workspace" / "ledger.db")
    (kept,) = ledger.execute("SELECT id FROM deployments WHERE mode = 'live' LIMIT 1").fetchall()
    (split,) = ledger.execute("SELECT facts FROM datasets").fetchall()
    test = json.loads(split[0])["splits"]["test"]
    middle = (test["from_ns"] + test["to_ns"]) // 2
    ledger.execute("UPDATE deployments SET mode = 'was' WHERE id != ?", kept)
    begin, half = (
        datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        for ns in (test["from_ns"], middle)
    )
    ledger.execute(
        "UPDATE deployments SET created_at = ?, retired_at = NULL, model_id = ? WHERE id = ?",
        (half, first, *kept),
    )
    ledger.execute(
        "INSERT INTO deployments (id, created_at, model_id, endpoint, mode, retired_at) "
        "VALUES ('deployment-half', ?, ?, 'sim', 'live', ?)",
        (begin, second, half),
    )
    ledger.commit()
    told["known"] = answer(folder, "backtest", "replay", first)["serving"]
    told["recorded"] = answer(folder, "backtest", "replay", first, "--serving", "recorded")
    return told | {"first": first, "second": second}


def test_where_nothing_is_known_to_have_been_live_the_model_asked_about_answers(replayed):
    serving = replayed["unknown"]
    assert (serving["is_live_history"], serving["models"]) == (False, [replayed["first"]])
    assert serving["by"]["model changes"] == 0.0


def test_the_model_that_was_live_at_each_moment_answers(replayed):
    serving = replayed["known"]
    assert sorted(serving["models"]) == sorted([replayed["first"], replayed["second"]])
    assert serving["by"]["model changes"] != 0.0
    assert serving["ideal"] == replayed["unknown"]["ideal"]


def test_the_lines_of_a_replay_add_up(replayed):
    serving = replayed["known"]
    lines = sum(serving["by"].values()) + serving["interaction"]
    assert lines == pytest.approx(serving["ideal"] - serving["served"])


def test_an_order_without_a_recorded_prediction_is_an_abstention(replayed):
    # what was live for the first half left no predictions
    serving = replayed["recorded"]["serving"]
    assert 0 < serving["n_abstained"] < serving["n"]
    assert serving["kind"] == "recorded"
