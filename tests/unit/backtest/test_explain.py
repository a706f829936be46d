"""From a trade back to what it was made of, and the ledger that holds it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger_cases import add_batch, add_model, add_study
from market_cases import random_walk
from trademl.backtest.compare import compare
from trademl.backtest.explain import explain_trade
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.strategy_jobs import backtest_file
from trademl.errors import StoreError
from trademl.ingest.sources import FeedConfig
from trademl.ledger import Ledger, tables
from trademl.market.costs import Costs
from trademl.store.artifacts import ArtifactStore

STRATEGY = """
from trademl.backtest.callback import Bracket
from trademl.market.orders import Side

def decide(now):
    {first}
    return Bracket(Side.BUY, 1.0, 1.0) if now.index % 50 == 0 else None
"""
FREE = Costs()
SURE = BacktestConfig(reject_share=0.0)


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


@pytest.fixture
def trade_file(tmp_path, store, ledger):
    quotes = random_walk(2_000)
    columns = {"ts_event": quotes.ts_event, "bid": quotes.bid, "ask": quotes.ask}
    pq.write_table(pa.table(columns), tmp_path / "q.parquet")
    feed = FeedConfig(quotes=str(tmp_path / "q.parquet"))

    def trade(first="pass", costs=FREE):
        file = tmp_path / "mine.py"
        file.write_text(STRATEGY.format(first=first))
        return backtest_file(file, feed, costs, SURE, store, ledger)

    return trade


def test_strategy_runs_are_in_the_ledger_with_their_trades(trade_file, ledger):
    made = trade_file()

    rows = ledger.rows(tables.Trade, backtest_id=made.id)
    assert len(rows) == made.metrics["n_trades"] > 10
    assert ledger.get(tables.Backtest, made.id).model_id is None
    assert rows[0].score is None
    assert rows[0].pnl == pytest.approx(rows[0].gross_points - rows[0].fees + rows[0].carry)


def test_the_same_trades_are_stored_once(trade_file, store):
    assert trade_file().id == trade_file().id
    assert len(store.all_of("backtest")) == 1


def test_a_strategy_that_raises_keeps_what_had_ended_and_is_marked(trade_file, ledger):
    made = trade_file("assert now.index < 900")

    assert "AssertionError" in made.metrics["stopped"]
    assert len(ledger.rows(tables.Trade, backtest_id=made.id)) == made.metrics["n_trades"] > 0


def test_benchmarks_stand_beside_a_strategy_file(trade_file):
    beside = trade_file().metrics["benchmarks"]

    assert beside["buy_and_hold"]["n_trades"] == 1
    assert beside["random_entry"]["n_trades"] > 0


def test_ticks_of_a_trade_are_the_very_quotes_it_filled_on(trade_file, store, ledger):
    made = trade_file()
    found = explain_trade(made.id, 0, store, ledger)

    (entry,) = [tick for tick in found["ticks"]["entry"] if tick["is_it"]]
    (leave,) = [tick for tick in found["ticks"]["exit"] if tick["is_it"]]
    assert entry["ask"] == found["trade"]["entry_price"]
    assert leave["ts_event_ns"] == found["trade"]["closed_at_ns"]
    assert found["missing"] == ["model, dataset and batch: a strategy file decided, no model"]


def test_ticks_that_are_gone_are_said_to_be_missing(trade_file, store, ledger, tmp_path):
    made = trade_file()
    (tmp_path / "q.parquet").unlink()

    found = explain_trade(made.id, 0, store, ledger)

    assert found["ticks"] is None
    assert any(what.startswith("the ticks") for what in found["missing"])


def test_a_trade_of_a_model_leads_back_to_its_batch(store, ledger):
    add_batch(ledger)
    add_study(ledger)
    add_model(ledger, "model-1")
    ledger.record(
        tables.Proof(id="proof-1", dataset_id="dataset-1", is_proven=True, evidence={}),
        tables.Trial(study_id="study-1", number=0, hyperparameters={"l1": 1}, metrics={}),
    )
    row = {
        "number": 0, "order_id": 4, "side": "buy", "opened_at_ns": 1, "entry_price": 1.0,
        "closed_at_ns": 2, "exit_price": 2.0, "exit_reason": "time", "fees": 0.0, "pnl": 1.0,
        "score": 0.9,
    }  # fmt: skip
    backtest = tables.Backtest(
        id="backtest-1",
        model_id="model-1",
        dataset_id="dataset-1",
        engines=[],
        metrics={},
        path="/p",
    )
    ledger.replace(backtest, (tables.Trade, "backtest_id", [row]))

    found = explain_trade("backtest-1", 0, store, ledger)

    steps = ("model", "study", "dataset", "proof", "batch")
    ids = ["model-1", "study-1", "dataset-1", "proof-1", "batch-1"]
    assert [found[step]["id"] for step in steps] == ids
    assert found["study"]["trial"]["hyperparameters"] == {"l1": 1}
    assert any(what.startswith("a deployment") for what in found["missing"])


def test_a_trade_of_a_walk_forward_leads_back_to_the_model_of_its_window(store, ledger):
    add_batch(ledger)
    add_study(ledger)
    for name in ("model-1", "model-2"):
        add_model(ledger, name)
    walk = tables.WalkForward(
        id="walkforward-1", batch_id="batch-1", from_ns=0, to_ns=99, settings={}, metrics={},
        path="/p",
    )  # fmt: skip
    windows = [
        {
            "number": k, "model_id": f"model-{k + 1}", "verdict": "promote", "reasons": [],
            "n_learned": 9, "traded_from_ns": 50 * k, "traded_to_ns": 50 * k + 49, "n_trades": 1,
            "pnl": 1.0, "ungated_pnl": 1.0,
        }
        for k in range(2)
    ]  # fmt: skip
    trade = {
        "number": 0, "order_id": 4, "side": "buy", "opened_at_ns": 61, "entry_price": 1.0,
        "closed_at_ns": 70, "exit_price": 2.0, "exit_reason": "time", "fees": 0.0, "pnl": 1.0,
        "score": 0.9, "decided_at_ns": 60,
    }  # fmt: skip
    ledger.replace(walk, (tables.WalkWindow, "walk_forward_id", windows))
    account = tables.Backtest(id="walkforward-1", engines=[], metrics={}, path="/p")
    ledger.replace(account, (tables.Trade, "backtest_id", [trade]))

    found = explain_trade("walkforward-1", 0, store, ledger)

    assert (found["model"]["id"], found["batch"]["id"]) == ("model-2", "batch-1")


def test_no_such_trade_says_how_many_there_are(trade_file, store, ledger):
    made = trade_file()

    with pytest.raises(StoreError, match=f"no trade 999: it has {made.metrics['n_trades']}"):
        explain_trade(made.id, 999, store, ledger)


def test_no_such_backtest_is_one_line(store, ledger):
    with pytest.raises(StoreError, match="no backtest backtest-0"):
        explain_trade("backtest-0", 0, store, ledger)


def test_latency_told_differently_is_named_and_adds_up(trade_file, store, ledger):
    fast, slow = trade_file(), trade_file(costs=Costs(latency_ms=3_000))

    found = compare(fast.id, slow.id, store, ledger)

    assert found["settings"] == {"costs.latency_ms": [0.0, 3_000]}
    assert found["causes"]["latency"]["n"] > 0
    assert found["causes"]["data revision"]["n"] == found["causes"]["missed tick"]["n"] == 0
    total = sum(row["pnl"] for row in found["causes"].values())
    assert total == pytest.approx(slow.metrics["net_pnl"] - fast.metrics["net_pnl"])


def test_tables_written_by_the_report_compare_as_the_same_trades(
    trade_file, store, ledger, tmp_path
):
    made = trade_file()
    table = pq.read_table(made.file("trades.parquet"))
    pq.write_table(table, tmp_path / "live.parquet")

    found = compare(made.id, str(tmp_path / "live.parquet"), store, ledger)

    assert found["n_alike"] == made.metrics["n_trades"]
    assert np.isclose(found["difference"], 0)
