"""``trademl serve live`` from the command line: shadow, paper, killed and gone on with, over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from certificates import certificate
from running import one_line
from trademl.backtest.compare import compare
from trademl.backtest.compiled import run_compiled
from trademl.backtest.jobs import backtest_model
from trademl.backtest.replay import backtest_replay
from trademl.backtest.signals import Signals
from trademl.backtest.sizing import sized
from trademl.config import load_settings
from trademl.errors import ConfigError, ServeError
from trademl.etl.dataset import load_split
from trademl.etl.features import feature_matrix, usable_rows
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.ingest.order_bot import place_orders
from trademl.ingest.sources import read_quotes
from trademl.ledger import Ledger, tables
from trademl.ledger.live_tables import BrokerOrder, LiveDecision, LiveRun
from trademl.pipeline.live import LiveOptions, trade_live
from trademl.pipeline.workspace import Workspace
from trademl.serve.deployments import DEPLOYED, RungConfig, current_deployment, served_model
from trademl.serve.predictions import predict_dataset, read_scores
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy, ServerConfig
from trademl.train.model import load_model


@pytest.fixture
def workspace(finished, tmp_path):
    """Return a copy of the finished workspace, for a test to trade in."""
    import shutil

    copy = tmp_path / "ws"
    shutil.copytree(finished[0], copy)
    return copy


def traded(trademl, workspace, *words):
    done = trademl("serve", "live", "--workspace", workspace, "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def backtested(strategy, workspace, model_id=None):
    """Return the trades of a model, the deployed one by default, over the whole recording."""
    quotes = read_quotes(strategy.feed)
    orders = place_orders(quotes, strategy.orders)
    orders = orders.take(usable_rows(quotes, orders.quote_index, strategy.features))
    standing = current_deployment("small", workspace.ledger)
    artifact = workspace.store.get(model_id or standing.model_id)
    features_ND = feature_matrix(quotes, orders.quote_index, strategy.features)
    score = load_model(artifact.file("model.tar.gz")).scores(features_ND).astype(float)
    signals = Signals(orders, orders.quote_index, score)
    signals = signals.flagged(artifact.metrics["threshold"])
    signals = sized(quotes, signals, strategy.costs, strategy.backtest)
    limits = strategy.backtest.limits(strategy.seed)
    return run_compiled(quotes, signals, strategy.costs, limits=limits)


def test_a_refused_model_runs_in_shadow_unless_asked(trademl, workspace):
    done = trademl("serve", "live", "--workspace", workspace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("SHADOW: model-")
    with Workspace(workspace) as opened:
        assert opened.ledger.rows(LiveDecision)
        assert opened.ledger.rows(BrokerOrder) == []


def test_paper_trades_are_those_of_the_backtest_in_process_and_over_http(
    project, workspace, monkeypatch
):
    monkeypatch.chdir(project)
    strategy = load_settings(project / "strategy.toml", environ={}).strategy
    with Workspace(workspace) as opened:
        trades = backtested(strategy, opened)
        here = trade_live(strategy, opened, LiveOptions(trade_refused=True))
        model = served_model(current_deployment("small", opened.ledger), opened.store)
        with shared_server(ServedStrategy("small", (model,))) as server:
            asked = LiveOptions(trade_refused=True, url=server.url)
            there = trade_live(strategy, opened, asked)
    assert here["n_trades"] == len(trades) > 0
    assert np.isclose(here["net_pnl"], trades.pnl.sum(), atol=1e-9)
    assert here["tiers"].keys() <= {"biggest", "none"}
    for name in ("n_trades", "net_pnl", "outcomes"):
        assert there[name] == here[name]
    assert without_id(there["open"]) == without_id(here["open"])


class Eager:
    """Another strategy's model, of as many columns: it would buy always."""

    columns = tuple(map(str, range(65)))
    schema_hash = "eager"

    def predict(self, features_ND):
        score_N = np.ones(len(features_ND), np.float32)
        return score_N, score_N


EAGER = ServedModel(Eager(), "model-00000000cafe")


def shared_server(*strategies):
    """Return a server that answers for another strategy first."""
    return BackgroundServer([ServedStrategy("btc", (EAGER,)), *strategies])


def test_a_server_that_does_not_have_the_strategy_is_refused_unless_its_name_is_said(
    project, workspace, monkeypatch
):
    monkeypatch.chdir(project)
    strategy = load_settings(project / "strategy.toml", environ={}).strategy
    with Workspace(workspace) as opened:
        model = served_model(current_deployment("small", opened.ledger), opened.store)
        with BackgroundServer(model) as server:
            with pytest.raises(ServeError, match="has default; say with --endpoint what it calls"):
                trade_live(strategy, opened, LiveOptions(url=server.url))
            found = trade_live(strategy, opened, LiveOptions(url=server.url, endpoint="default"))
    assert found["tiers"].keys() == {"biggest", "none"}
    for more in ({"endpoint": "default"}, {"ca_file": "ca.pem"}):
        with pytest.raises(ConfigError, match="give its --url too"):
            LiveOptions(**more)


def test_a_model_that_is_none_of_the_strategys_is_refused(project, workspace, monkeypatch):
    monkeypatch.chdir(project)
    strategy = load_settings(project / "strategy.toml", environ={}).strategy
    with Workspace(workspace) as opened:
        with BackgroundServer([ServedStrategy("small", (EAGER,))]) as server:
            message = "answers for small with model-00000000cafe, which is none of its models here"
            with pytest.raises(ServeError, match=message):
                trade_live(strategy, opened, LiveOptions(url=server.url))
        assert opened.ledger.rows(LiveRun) == []


def test_a_server_of_several_is_asked_about_a_dataset_in_the_strategys_name(workspace):
    with Workspace(workspace) as opened:
        store, ledger = opened.store, opened.ledger
        deployment, dataset = current_deployment("small", ledger), store.newest("dataset")
        model = served_model(deployment, store)
        asked = (deployment, dataset, store, ledger)
        with (
            BackgroundServer([ServedStrategy("small", (EAGER,))]) as server,
            pytest.raises(ServeError, match="for small with model-00000000cafe, expected"),
        ):
            predict_dataset(*asked, split="validation", url=server.url)
        with shared_server(ServedStrategy("small", (model,))) as server:
            found = predict_dataset(*asked, split="validation", url=server.url)
        features_ND = load_split(dataset, "validation").features_ND
        np.testing.assert_array_equal(read_scores(found), model.scores(features_ND).score_N)


def test_a_server_behind_an_authority_of_ones_own_is_asked(trademl, workspace, tmp_path):
    authority = certificate(tmp_path, name="authority", host="DNS:authority")
    cert, key = certificate(tmp_path, signed_by=authority)
    with Workspace(workspace) as opened:
        model = served_model(current_deployment("small", opened.ledger), opened.store)
    config = ServerConfig(port=0, tls_cert=cert, tls_key=key)
    with BackgroundServer([ServedStrategy("small", (model,))], config) as server:
        found = traded(trademl, workspace, "--url", server.url, "--ca-file", authority[0])

    assert found["tiers"].keys() == {"biggest", "none"}


@pytest.fixture
def with_rung(trademl, project, workspace, monkeypatch):
    """The strategy with another model above the deployed one, and that model's id."""
    trademl("train", "--hp", "wd=0.5", "--workspace", workspace)
    done = trademl("models", "select", "--json", "--workspace", workspace)
    other = json.loads(done.stdout)["id"]
    monkeypatch.chdir(project)
    strategy = load_settings(project / "strategy.toml", environ={}).strategy
    rungs = (RungConfig(other), RungConfig(DEPLOYED))
    return replace(strategy, serving=replace(strategy.serving, rungs=rungs)), other


def test_a_live_run_climbs_the_rungs_of_the_file_and_its_replay_says_the_same(with_rung, workspace):
    strategy, biggest = with_rung
    plain = replace(strategy, serving=replace(strategy.serving, rungs=()))
    with Workspace(workspace) as opened:
        store, ledger = opened.store, opened.ledger
        before = trade_live(plain, opened, LiveOptions(trade_refused=True))
        live = trade_live(strategy, opened, LiveOptions(trade_refused=True))
        rows = [
            row for row in ledger.rows(LiveDecision, run_id=live["id"]) if row.score is not None
        ]
        index_N = np.array([row.quote_index for row in rows])
        quotes = read_quotes(strategy.feed)
        model = load_model(store.get(biggest).file("model.tar.gz"))
        score_N = model.scores(feature_matrix(quotes, index_N, strategy.features))
        trades = backtested(strategy, opened, biggest)
        played = backtest_replay(
            store.get(biggest), strategy.costs, store, ledger, kind="recorded", strategy="small",
            live=live["id"], config=strategy.backtest, seed=3,
        )  # fmt: skip

    assert live["id"] != before["id"]
    assert live["model"] == before["model"] != biggest
    assert {(row.model_id, row.tier) for row in rows} == {(biggest, "biggest")}
    assert [row.score for row in rows] == score_N.astype(float).tolist()
    assert live["n_trades"] == len(trades) > 0
    assert np.isclose(live["net_pnl"], trades.pnl.sum(), atol=1e-9)
    assert played.metrics["serving"]["models"] == [biggest]
    assert played.metrics["serving"]["n_smaller"] == 0


def test_rungs_that_this_machine_lacks_are_those_of_the_server_that_is_asked(with_rung, workspace):
    strategy, _ = with_rung
    rungs = (RungConfig(DEPLOYED, "cuda"),)
    strategy = replace(strategy, serving=replace(strategy.serving, rungs=rungs))
    with Workspace(workspace) as opened:
        model = served_model(current_deployment("small", opened.ledger), opened.store)
        with pytest.raises(ConfigError, match="computes on the processor alone"):
            trade_live(strategy, opened)
        with BackgroundServer([ServedStrategy("small", (model,))]) as server:
            there = trade_live(strategy, opened, LiveOptions(url=server.url))

    assert there["status"] == "finished"


def without_id(left_open):
    """What stood at the end, but for its order's name, which holds the id of the run."""
    return {key: value for key, value in (left_open or {}).items() if key != "order"}


def test_a_live_run_is_replayed_and_compared_with_its_backtest(project, workspace, monkeypatch):
    monkeypatch.chdir(project)
    strategy = load_settings(project / "strategy.toml", environ={}).strategy
    costs, config = strategy.costs, strategy.backtest
    with Workspace(workspace) as opened:
        store, ledger = opened.store, opened.ledger
        live = trade_live(strategy, opened, LiveOptions(trade_refused=True))
        model = store.get(live["model"])
        played = backtest_replay(
            model, costs, store, ledger, kind="recorded", strategy="small", config=config, seed=3
        )
        direct = backtest_model(model, costs, store, ledger, config=config, seed=3)
        told = compare(direct.id, live["id"], store, ledger, ticks=opened.ticks)
        late = compare(played.id, live["id"], store, ledger, ticks=opened.ticks)
        trades = ledger.rows(tables.Trade, backtest_id=played.id)
    serving = played.metrics["serving"]
    assert serving["live_run"] == live["id"]
    assert serving["n_abstained"] == 0
    assert {row.tier for row in trades} == {"biggest"}
    assert all(row.latency_ms > 0 for row in trades)
    assert told["one"]["n_trades"] > 0
    assert told["n_alike"] >= told["one"]["n_trades"] - 2  # live came into the window with a trade
    assert told["other"]["n_outside"] > 0
    assert late["n_paired"] >= told["one"]["n_trades"] - 2
    assert late["causes"]["missed tick"]["n"] == 0


@pytest.mark.slow
def test_a_run_that_was_killed_and_one_that_was_stopped_go_on(trademl, project, workspace):
    command = [sys.executable, "-m", "trademl", "serve", "live", "--workspace", str(workspace)]
    command += ["--trade-refused", "--json", "--speed", "600"]
    n_before = 0
    for number in (signal.SIGKILL, signal.SIGTERM):
        running = subprocess.Popen(
            command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        wait_for_orders(workspace, more_than=n_before)
        os.kill(running.pid, number)
        out, _ = running.communicate(timeout=300)
        n_before = count_orders(workspace)  # the next one's own orders say that it trades
    assert running.returncode == 0
    assert json.loads(out)["status"] == "stopped"
    gone_on = traded(trademl, workspace, "--trade-refused")
    assert gone_on["status"] == "finished"
    assert gone_on["n_resumed"] > 0
    with Ledger(f"sqlite:///{workspace / 'ledger.db'}").engine.connect() as connection:
        rows = connection.exec_driver_sql("select quote_index, outcome from live_decisions").all()
        n_orders = connection.exec_driver_sql("select count(*) from broker_orders").scalar()
    assert len({index for index, _ in rows}) == len(rows) == gone_on["n_decisions"]
    assert n_orders == 2 * gone_on["outcomes"]["order"]


def count_orders(workspace):
    ledger = Ledger(f"sqlite:///{workspace / 'ledger.db'}")
    n = len(ledger.rows(BrokerOrder))
    ledger.close()
    return n


def wait_for_orders(workspace, *, more_than):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if count_orders(workspace) > more_than:
            return
        time.sleep(0.05)
    raise AssertionError("no order came")


def test_what_cannot_be_traded_is_refused_before_anything_is_kept(project, workspace, monkeypatch):
    monkeypatch.chdir(project)
    strategy = load_settings(project / "strategy.toml", environ={}).strategy
    with pytest.raises(ConfigError, match="--speed is -1"):
        LiveOptions(speed=-1)
    other = replace(strategy, features=FeatureRecipe(lags=(Lags(7),)))
    with Workspace(workspace) as opened:
        with pytest.raises(ServeError, match="nothing answers at"):
            trade_live(strategy, opened, LiveOptions(url="http://127.0.0.1:1"))
        with pytest.raises(
            ConfigError, match=r"takes 65 columns, the recipe of \[features\] has 12"
        ):
            trade_live(other, opened)
        assert opened.ledger.rows(LiveRun) == []


def test_two_processes_do_not_trade_in_one_workspace(trademl, workspace):
    with Workspace(workspace) as opened, opened.lock("live"):
        assert "is in use by another run" in one_line(
            trademl("serve", "live", "--workspace", workspace)
        )
