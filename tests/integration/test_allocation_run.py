"""An allocation from bars to verdict: models, cards, trades and weights, all in the ledger."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from trademl import load_model, load_settings, predict, promote_model, run
from trademl.backtest.quarterly import Fitted, day_rows, ridge
from trademl.backtest.quarterly_proof import prove_rows
from trademl.cli.main import app
from trademl.ledger import tables
from trademl.pipeline.allocate import read_market, read_snapshots
from trademl.pipeline.workspace import Workspace
from trademl.serve.deployments import deployed_strategies
from trademl.serve.server import BackgroundServer
from trademl.train.card import model_card

HOUR = 3_600_000_000_000
STRATEGY = """
name = "quarters"
[allocation]
bars = ["bars.parquet"]
horizons = [5, 20]
first_years = 1.0
[costs]
fee_bps = 1.0
[serving]
endpoint = "quarters"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quarters")
    rng, days = np.random.default_rng(0), int(3 * 365.25)
    ts = ((np.arange(days)[:, None] + 14_610) * 24 + np.array([14, 15, 16, 17])).ravel() * HOUR
    parts = []
    for symbol in ("AAA", "BBB", "CCC"):
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.004, len(ts))))
        open_ = np.concatenate([[100.0], close[:-1]])
        parts.append(
            pa.table({
                "time": pa.array(ts).cast(pa.timestamp("ns", "UTC")),
                "symbol": [symbol] * len(ts), "open": open_,
                "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close,
            })
        )  # fmt: skip
    pq.write_table(pa.concat_tables(parts), folder / "bars.parquet")
    (folder / "strategy.toml").write_text(STRATEGY)
    return folder


@pytest.fixture(scope="module")
def strategy(folder):
    return load_settings(folder / "strategy.toml", workspace=folder / "ws").strategy


@pytest.fixture(scope="module")
def story(folder, strategy):
    with Workspace(folder / "ws") as workspace:
        yield {"first": run(strategy, workspace), "again": run(strategy, workspace)}, workspace


def test_a_second_run_changes_nothing(story):
    told, workspace = story
    assert told["again"] == told["first"]
    assert len(workspace.ledger.rows(tables.Gate)) == 1


def test_each_quarter_has_its_model_and_weights_in_the_ledger(story):
    told, workspace = story
    found = told["first"]["allocation"]
    ledger = workspace.ledger

    models = ledger.rows(tables.Model, study_id=found["id"])
    weights = ledger.rows(tables.AllocationWeight, backtest_id=told["first"]["backtest"]["id"])
    assert len(models) == found["decisions"] == 7
    assert len(weights) == 7 * 3
    assert {w.model_id for w in weights} == {m.id for m in models}
    for number in range(7):
        assert sum(w.weight for w in weights if w.number == number) <= 1 + 1e-9


def test_trades_lie_where_other_strategies_have_them_and_add_up(story):
    told, workspace = story
    backtest = told["first"]["backtest"]
    trades = workspace.ledger.rows(tables.Trade, backtest_id=backtest["id"])

    assert {t.instrument for t in trades} <= {"AAA", "BBB", "CCC"}
    assert sum(t.pnl for t in trades) == pytest.approx(backtest["net_pnl"])
    curve = workspace.ledger.rows(tables.Equity, backtest_id=backtest["id"])
    assert max(curve, key=lambda p: p.ts_event_ns).equity == pytest.approx(backtest["net_pnl"])


def test_a_random_market_has_no_edge_and_the_first_line_says_so(story, folder):
    told, _ = story
    words = ["run", str(folder / "strategy.toml"), "--workspace", str(folder / "ws")]
    done = CliRunner().invoke(app, words)

    assert told["first"]["gate"]["verdict"] != "promote"
    assert done.stdout.startswith("no edge after costs: a quarter earned")
    assert "Survivorship: AAA, BBB, CCC are those that the files hold" in done.stdout
    assert "6 independent quarters" in done.stdout.splitlines()[0]


def test_a_quarters_model_forecasts_what_the_walk_did(story, strategy):
    told, workspace = story
    snapshots = read_snapshots(strategy.allocation)
    at_I, rows = day_rows(snapshots, strategy.allocation)
    weights = workspace.ledger.rows(tables.AllocationWeight, number=3)
    artifact = workspace.store.get(weights[0].model_id)
    day = int(np.flatnonzero(snapshots.ts_T[at_I] == weights[0].decided_at_ns)[0])
    own = rows.features_NK[rows.day_N == day]

    score_N, label_N = load_model(artifact.file("model.tar.gz")).predict(own)
    forecasts = {w.instrument: w.forecast for w in weights}
    np.testing.assert_allclose(score_N, [forecasts[s] for s in snapshots.symbols], rtol=1e-5)
    assert label_N is None
    assert told["first"]["selected"]["status"] == "refused"


def test_a_quarters_card_has_a_baseline_beside_every_number(story):
    told, workspace = story
    newest = workspace.store.get(told["first"]["selected"]["id"])
    card = model_card(newest, workspace.store, workspace.ledger)

    assert {"card.json", "card.md", "model.tar.gz"} == set(newest.manifest["files"])
    assert all(f["baseline"] is not None for f in card["figures"])
    assert card["gates"][0]["verdict"] == told["first"]["gate"]["verdict"]
    assert json.loads(newest.file("card.json").read_bytes())["id"] == newest.id


def test_a_quarters_model_is_promoted_by_force_and_served(story, strategy):
    told, workspace = story
    newest = workspace.store.get(told["first"]["selected"]["id"])
    promote_model(newest, strategy, workspace, force="a drill")
    ladder = deployed_strategies(
        ["quarters"], workspace.store, workspace.ledger,
        policy=strategy.ladder, freshness=strategy.freshness,
    )  # fmt: skip
    _, rows = day_rows(read_snapshots(strategy.allocation), strategy.allocation)

    with BackgroundServer(*ladder) as server:
        answers = predict(server.url, rows.features_NK[-4:])

    expected = load_model(newest.file("model.tar.gz")).scores(rows.features_NK[-4:])
    np.testing.assert_allclose(answers.score_N, expected, rtol=1e-6)
    assert np.isnan(answers.label_N).all()
    assert answers.model_id == newest.id


def test_rows_are_proven_free_of_look_ahead(story):
    _, workspace = story
    (proof,) = workspace.ledger.rows(tables.Proof)
    assert proof.is_proven
    assert proof.evidence["n_cells"] > 10_000


def test_an_indicator_that_looks_ahead_fails_the_proof(strategy, monkeypatch):
    from trademl.backtest import quarterly_proof

    def leaking(snapshots, config):
        at_I, rows = day_rows(snapshots, config)
        return at_I, replace(rows, features_NK=rows.features_NK - rows.features_NK.mean(axis=0))

    monkeypatch.setattr(quarterly_proof, "day_rows", leaking)
    evidence = prove_rows(*read_market(strategy.allocation), strategy.allocation)
    assert not evidence.is_proven
    assert "is another number when bars end at" in evidence.faults[0]


def test_a_fit_is_a_model_and_what_it_says_of_rows(strategy):
    _, rows = day_rows(read_snapshots(strategy.allocation), strategy.allocation)
    known = np.flatnonzero(np.isfinite(rows.target_N))
    trains, validates = np.zeros(len(rows.day_N), bool), np.zeros(len(rows.day_N), bool)
    trains[known[:600]], validates[known[800:]] = True, True

    fitted = ridge(rows, trains, validates)
    assert isinstance(fitted, Fitted)
    expected = fitted.model.logits(rows.features_NK[:50])
    np.testing.assert_allclose(fitted.forecast(np.arange(50)), expected, atol=1e-9)
