"""What a server does on its own stands in the ledger: over HTTP, pushed down until it moves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from serving_cases import (
    Big,
    Small,
    ask,
    away,
    linear_model,
    metrics,
    wait_for_metric,
    wait_until,
)
from trademl.ledger import Ledger
from trademl.ledger.serving_tables import ServingEvent
from trademl.serve import model_pool
from trademl.serve.event_writer import EventWriter
from trademl.serve.ladder import LadderPolicy
from trademl.serve.ledger_events import ledger_events
from trademl.serve.model_pool import ModelFile
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy, ServerConfig
from trademl.serve.shares import Quota
from trademl.train.model import save_model

SWIFT_UP = LadderPolicy(up_after_s=0.2)


@pytest.fixture
def big():
    model = Big()
    yield model
    model.may_go.set()


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


def ladder(big, **rules):
    models = (ServedModel(big, "m-big"), ServedModel(Small(), "m-small"))
    return ServedStrategy("btc", models, **rules)


def push_down(running, big, pool):
    """Ask more than a model that does not answer can bear; return how many were answered 200."""
    big.may_go.clear()
    asked = [pool.submit(ask, running, b"1,%d" % n, X_Trademl_Deadline_Ms="9000") for n in range(8)]
    wait_for_metric(running, 'trademl_level{strategy="btc"}', "1")
    big.may_go.set()
    return [a.result()[0] for a in asked].count(200)


def test_every_step_on_the_ladder_is_in_the_ledger(big, ledger):
    events = EventWriter(ledger_events(ledger, "here"))
    strategy = ladder(big, policy=SWIFT_UP)
    with (
        events,
        BackgroundServer(strategy, events=events) as running,
        ThreadPoolExecutor(8) as pool,
    ):
        n_answered = push_down(running, big, pool)
        wait_for_metric(running, 'trademl_level{strategy="btc"}', "0")
        wait_for_metric(running, 'trademl_ledger_events_total{result="written"}', "2")
        found = metrics(running)
    down, up = ledger.rows(ServingEvent)

    assert n_answered == 8
    assert (down.strategy, down.kind, down.old, down.new) == ("btc", "tier", "biggest", "smallest")
    assert (up.old, up.new, up.reason) == ("smallest", "biggest", "load is low")
    assert down.reason in ("the queue is too long", "the model is too busy")
    assert down.at_ns < up.at_ns
    assert len(down.facts["utilisation"]) == 2
    steps = [int(v) for name, v in found.items() if name.startswith("trademl_tier_changes_total")]
    assert sum(steps) == 2
    assert found['trademl_ledger_events_total{result="dropped"}'] == "0"


def test_a_ledger_that_is_away_costs_no_answer_and_gets_its_events_later(big, ledger, tmp_path):
    events = EventWriter(ledger_events(ledger, "here"), retry_s=0.01)
    with (
        events,
        BackgroundServer(ladder(big), events=events) as running,
        ThreadPoolExecutor(8) as pool,
    ):
        with away(tmp_path / "ledger.db"):
            n_answered = push_down(running, big, pool)
            waiting = metrics(running)["trademl_ledger_events_waiting"]
        wait_until(lambda: events.n_waiting == 0)

    assert n_answered == 8
    assert int(waiting) >= 1
    assert ledger.rows(ServingEvent)[0].new == "smallest"


def test_requests_that_wait_together_are_one_call_of_the_model(big):
    one_thread = ServerConfig(port=0, threads=1)
    patient = LadderPolicy(patience_ms=20_000, deadline_ms=30_000)
    strategy = ServedStrategy("btc", (ServedModel(big, "m"),), patient)
    with BackgroundServer(strategy, one_thread) as running, ThreadPoolExecutor(6) as pool:
        big.may_go.clear()
        # of many rows, so that its long wait is no long time for a row
        first = pool.submit(ask, running, b"\n".join([b"1,0"] * 200))
        wait_until(lambda: big.n_rows == [200])
        rest = [pool.submit(ask, running, b"1,%d" % n) for n in range(1, 6)]
        wait_for_metric(running, 'trademl_rows_total{strategy="btc"}', "205")
        big.may_go.set()
        scores = [a.result()[2]["predictions"][0]["score"] for a in (first, *rest)]

    assert big.n_rows == [200, 5]
    assert scores == [1, 2, 3, 4, 5, 6]


def test_what_computes_on_a_card_waits_for_no_thread_of_the_processor(big, monkeypatch, tmp_path):
    card, loaded = Big(), []

    def load_on(path, device):
        loaded.append(device)
        return card

    monkeypatch.setattr(model_pool, "load_on", load_on)
    save_model(linear_model(1.0), tmp_path / "model.tar.gz")
    on_card = ModelFile("m-card", str(tmp_path / "model.tar.gz"), device="cuda")
    strategies = [
        ServedStrategy("btc", (ServedModel(big, "m"),)),
        ServedStrategy("alice", (on_card,)),
    ]
    one_thread = ServerConfig(port=0, threads=1)
    with BackgroundServer(strategies, one_thread) as running, ThreadPoolExecutor(1) as pool:
        big.may_go.clear()
        held_up = pool.submit(ask, running, X_Trademl_Deadline_Ms="20000")
        wait_until(lambda: big.n_rows == [1])
        _, headers, _ = ask(running, X_Trademl_Strategy="alice", X_Trademl_Deadline_Ms="10000")
        big.may_go.set()
        held_up.result()

    assert (headers["X-Trademl-Tier"], headers["X-Trademl-Model"]) == ("biggest", "m-card")
    assert loaded == ["cuda"]


def test_a_burst_of_one_strategy_leaves_another_its_biggest_model(big):
    calm = Big()
    policy = LadderPolicy(patience_ms=10_000, deadline_ms=20_000)
    strategies = [
        ServedStrategy("burst", (ServedModel(big, "m-burst"),), policy, quota=Quota(0.5, 9)),
        ServedStrategy("calm", (ServedModel(calm, "m-calm"),), policy, quota=Quota(0.5)),
    ]
    one_thread = ServerConfig(port=0, threads=1)
    with BackgroundServer(strategies, one_thread) as running, ThreadPoolExecutor(21) as pool:
        big.may_go.clear()
        burst = [
            # each longer than a batch of several may be, so that each is one of its own
            pool.submit(ask, running, b"\n".join([b"1,%d" % n] * 40), X_Trademl_Strategy="burst")
            for n in range(20)
        ]
        wait_for_metric(running, 'trademl_rows_total{strategy="burst"}', "800")
        asked = pool.submit(ask, running, X_Trademl_Strategy="calm")
        wait_for_metric(running, 'trademl_rows_total{strategy="calm"}', "1")
        big.may_go.set()
        status, headers, _ = asked.result()
        n_burst_before = len(big.n_rows)
        burst_statuses = {a.result()[0] for a in burst}

    assert (status, headers["X-Trademl-Tier"]) == (200, "biggest")
    assert n_burst_before < 20
    assert burst_statuses == {200}
