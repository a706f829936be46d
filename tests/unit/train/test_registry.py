"""Champions: one at a time, each with a reason, changed whole or not at all."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from ledger_cases import add_batch, add_gate, add_model, add_study
from trademl.errors import RegistryError
from trademl.ledger import Ledger, tables
from trademl.train import registry
from trademl.train.registry import challenger, champion, history, promote, rollback

DAYS = [datetime(2026, 2, day, tzinfo=UTC) for day in range(1, 9)]


@pytest.fixture
def ledger(tmp_path):
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    add_batch(opened)
    add_study(opened)
    for name in "abcd":
        add_model(opened, name)
    yield opened
    opened.close()


def promote_in_turn(ledger, *models):
    for model, at in zip(models, DAYS, strict=False):
        add_gate(ledger, model, champion=champion(ledger, "s"))
        promote(ledger, "s", model, how="gate", now=at)


def test_there_is_no_champion_at_first(ledger):
    assert champion(ledger, "s") is None
    assert history(ledger, "s") == []


def test_a_promotion_ends_the_reign_before_it_at_the_same_moment(ledger):
    promote_in_turn(ledger, "a", "b")

    first, second = history(ledger, "s")
    assert (first.model_id, first.from_at, first.to_at) == ("a", DAYS[0], DAYS[1])
    assert (second.model_id, second.from_at, second.to_at) == ("b", DAYS[1], None)
    assert (second.how, second.why) == ("gate", "the gate said promote")
    assert champion(ledger, "s") == "b"


def test_strategies_do_not_share_a_champion(ledger):
    promote_in_turn(ledger, "a")

    assert champion(ledger, "other") is None
    assert registry.strategies_of(ledger, "a") == ["s"]


def test_promoting_the_champion_again_changes_nothing(ledger):
    promote_in_turn(ledger, "a")
    before = history(ledger, "s")

    promote(ledger, "s", "a")

    assert history(ledger, "s") == before


def test_a_model_that_the_gate_never_saw_is_refused(ledger):
    with pytest.raises(RegistryError, match="not judged by the gate for strategy s: run trademl"):
        promote(ledger, "s", "a")


@pytest.mark.parametrize("verdict", ["hold", "reject"])
def test_a_model_that_was_not_let_through_is_refused_with_the_reason(ledger, verdict):
    add_gate(ledger, "a", verdict)

    with pytest.raises(RegistryError, match=f"is {verdict} .too little evidence.: .*--force"):
        promote(ledger, "s", "a", why="I like it")

    assert champion(ledger, "s") is None


def test_force_promotes_and_its_reason_is_kept(ledger):
    add_gate(ledger, "a", "reject")

    promote(ledger, "s", "a", force="the desk insists")

    (reign,) = history(ledger, "s")
    assert (reign.how, reign.why) == ("forced", "the desk insists")


def test_the_last_verdict_counts(ledger):
    add_gate(ledger, "a", "promote", day=1)
    add_gate(ledger, "a", "hold", day=2)

    with pytest.raises(RegistryError, match="is hold"):
        promote(ledger, "s", "a")


def test_a_verdict_beside_another_champion_is_stale(ledger):
    promote_in_turn(ledger, "a")
    add_gate(ledger, "b", champion=None)

    with pytest.raises(RegistryError, match="compared b with no champion, and .* is a now"):
        promote(ledger, "s", "b")


def test_an_unknown_model_is_named(ledger):
    with pytest.raises(RegistryError, match="model-x is no model of this ledger"):
        promote(ledger, "s", "model-x", force="why not")


def test_rollbacks_go_back_one_champion_at_a_time(ledger):
    promote_in_turn(ledger, "a", "b", "c")

    assert rollback(ledger, "s", why="it bleeds").model_id == "b"
    assert rollback(ledger, "s").model_id == "a"
    assert [r.how for r in history(ledger, "s")] == ["gate"] * 3 + ["rollback"] * 2
    assert history(ledger, "s")[3].why == "it bleeds"
    with pytest.raises(RegistryError, match="no earlier champion"):
        rollback(ledger, "s")


def test_a_rollback_after_a_promotion_returns_to_what_was_live_then(ledger):
    promote_in_turn(ledger, "a", "b")
    rollback(ledger, "s")
    add_gate(ledger, "c", champion="a")
    promote(ledger, "s", "c")

    assert rollback(ledger, "s").model_id == "a"


def test_nothing_to_go_back_to_is_an_error(ledger):
    promote_in_turn(ledger, "a")

    with pytest.raises(RegistryError, match="no earlier champion"):
        rollback(ledger, "s")
    assert champion(ledger, "s") == "a"


def test_a_model_that_was_taken_back_is_known_until_it_reigns_again(ledger):
    promote_in_turn(ledger, "a", "b")
    rollback(ledger, "s", why="it bleeds")

    assert registry.was_taken_back(ledger, "s", "b").why == "it bleeds"
    assert registry.was_taken_back(ledger, "s", "a") is None
    promote(ledger, "s", "b", force="mended")
    assert registry.was_taken_back(ledger, "s", "b") is None


def test_the_challenger_is_the_model_held_back_last(ledger):
    add_gate(ledger, "a", "hold", day=1)
    assert challenger(ledger, "s") == "a"
    add_gate(ledger, "b", "reject", day=2)
    assert challenger(ledger, "s") is None


def test_of_two_promotions_that_saw_the_same_champion_one_wins(ledger, monkeypatch):
    for model in "ab":
        add_gate(ledger, model)
    both_have_read, real = threading.Barrier(2), registry._last_gate

    def read_then_wait(*arguments):
        found = real(*arguments)
        both_have_read.wait(60)
        return found

    monkeypatch.setattr(registry, "_last_gate", read_then_wait)
    outcomes = {}

    def try_to_promote(model):
        try:
            outcomes[model] = promote(ledger, "s", model).model_id
        except RegistryError as error:
            outcomes[model] = str(error)

    threads = [threading.Thread(target=try_to_promote, args=model) for model in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    winner = champion(ledger, "s")
    (loser,) = {"a", "b"} - {winner}
    assert outcomes[winner] == winner
    assert "another promotion of strategy s came first and stands" in outcomes[loser]
    assert len(history(ledger, "s")) == 1


def test_a_promotion_that_fails_half_way_leaves_the_champion(ledger, monkeypatch):
    promote_in_turn(ledger, "a")
    add_gate(ledger, "b", champion="a")
    monkeypatch.setattr(registry, "_reigned", lambda row: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        promote(ledger, "s", "b")

    (reign,) = ledger.rows(tables.Reign)
    assert (reign.model_id, reign.to_at) == ("a", None)
