"""A live strategy that asks a server: only about itself, and only its own models are heard."""

from __future__ import annotations

import numpy as np
import pytest

from serving_cases import Small, add_artifact, open_ledger, put_behind
from trademl.errors import RefusedError, ServeError
from trademl.live.asking import ServerThere
from trademl.serve.known_models import KnownModels
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy
from trademl.store.artifacts import ArtifactStore

ROW = np.ones(2, np.float32)


class Negative(Small):
    def predict(self, features_ND):
        score_N, label_N = super().predict(features_ND)
        return -score_N, 1 - label_N


@pytest.fixture(scope="module")
def url():
    """A server of two strategies; btc answers who names none."""
    strategies = [
        ServedStrategy("btc", (ServedModel(Small(), "m-btc"),)),
        ServedStrategy("alice", (ServedModel(Negative(), "m-alice"),)),
    ]
    with BackgroundServer(strategies) as server:
        yield server.url


def test_a_server_of_several_answers_for_the_strategy_that_asks(url):
    with ServerThere(url, "alice", {"m-alice"}) as there:
        found = there.ask(ROW, 0.0)

    assert (found.score, found.is_yes, found.model_id) == (-2.0, False, "m-alice")


def test_a_server_without_the_strategy_is_named_at_the_start(url):
    message = "answered 404: no strategy 'diana': this server has btc, alice; say with --endpoint"
    with pytest.raises(ServeError, match=message), ServerThere(url, "diana", {"m-alice"}):
        pass


def test_a_model_of_another_ladder_is_refused_at_the_start(url):
    message = "answers for alice with m-alice, which is none of its models here"
    with pytest.raises(ServeError, match=message), ServerThere(url, "alice", {"m-1"}):
        pass


def test_a_model_of_another_ladder_is_refused_when_it_answers(url):
    models = {"m-alice"}
    with ServerThere(url, "alice", models) as there:
        models.clear()
        with pytest.raises(ServeError, match="answers for alice with m-alice, which is none"):
            there.ask(ROW, 0.0)


def test_a_server_that_fails_says_so_itself(url):
    there = ServerThere(f"{url}/elsewhere", "alice", ())
    with pytest.raises(RefusedError, match="answered 404: no path") as caught, there:
        pass

    assert caught.value.status == 404


def test_models_are_known_by_id_by_address_and_once_they_are_deployed(tmp_path):
    store = ArtifactStore(tmp_path / "store")
    one, two = add_artifact(store, 1), add_artifact(store, 2)
    ledger = open_ledger(tmp_path, one, two)
    put_behind(ledger, one)
    address = "s3://bucket/model-0123456789ab/network-0123456789cd/model.tar.gz"
    known = KnownModels("btc", ["m-1", address], ledger)
    assert "m-1" in known
    assert "network-0123456789cd" in known
    assert "model-0123456789ab" not in known

    assert two.id not in known
    put_behind(ledger, two)  # promoted: the server takes it over
    assert two.id in known
    put_behind(ledger, one)
    assert two.id in known  # until the server has gone back
    ledger.close()


def test_a_ledger_that_is_away_makes_nothing_known(tmp_path):
    ledger = open_ledger(tmp_path)
    assert "m-1" not in KnownModels("btc", [], ledger)  # nothing is deployed

    (tmp_path / "ledger.db").unlink()
    (tmp_path / "ledger.db").mkdir()
    assert "m-1" not in KnownModels("btc", [], ledger)
    ledger.close()
