"""A server that follows its ledger: what is deployed while it runs, and what goes wrong then."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from serving_cases import (
    add_artifact,
    ask,
    away,
    metrics,
    open_ledger,
    put_behind,
    score_of,
    wait_for_metric,
    wait_until,
)
from trademl.errors import ConfigError, DataError, LedgerAwayError, StoreError
from trademl.ledger import tables
from trademl.serve.deployments import (
    RungConfig,
    ServingConfig,
    current_deployment,
    deployed_file,
    deployed_strategies,
    served_model,
)
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.server import BackgroundServer, ServerConfig
from trademl.serve.shares import Quota
from trademl.store.artifacts import ArtifactStore
from trademl.train import registry

SWIFT = ServerConfig(port=0, follow_s=0.01)
SWAPS = 'trademl_model_swaps_total{strategy="btc"}'
REFUSED = 'trademl_model_swaps_refused_total{strategy="btc"}'
AWAY = 'trademl_ledger_away_total{strategy="btc"}'


@pytest.fixture
def shop(tmp_path):
    """A store of two models and a ledger in which the first is deployed at btc."""
    store = ArtifactStore(tmp_path / "store")
    one, two = add_artifact(store, 1), add_artifact(store, 2)
    ledger = open_ledger(tmp_path, one, two)
    put_behind(ledger, one)
    yield store, ledger, one, two
    ledger.close()


def strategies_of(store, ledger, endpoints=("btc",), **more):
    return deployed_strategies(
        endpoints, store, ledger, policy=LadderPolicy(), freshness=Freshness(), **more
    )


def following(shop):
    store, ledger, *_ = shop
    newest = partial(deployed_file, store=store, ledger=ledger)
    return BackgroundServer(strategies_of(store, ledger), SWIFT, newest=newest)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def answered(server):
    status, headers, answer = ask(server)
    return status, headers["X-Trademl-Model"], answer["predictions"][0]["score"]


def test_what_is_deployed_takes_over_and_going_back_does_too(shop):
    _, ledger, one, two = shop
    with following(shop) as server:
        put_behind(ledger, two)
        wait_for_metric(server, SWAPS, "1")
        after = answered(server)
        put_behind(ledger, one)
        wait_for_metric(server, SWAPS, "2")
        back = answered(server)

    assert after == (200, two.id, pytest.approx(score_of(2), abs=1e-7))
    assert back == (200, one.id, pytest.approx(score_of(1), abs=1e-7))


def test_a_promotion_alone_changes_nothing_before_it_is_deployed(shop):
    store, ledger, one, two = shop
    registry.promote(ledger, "btc", two.id, force="a strategy of the endpoint's name")

    assert deployed_file("btc", store, ledger).id == one.id
    assert strategies_of(store, ledger)[0].ladder[0].id == one.id  # as at the start


def test_a_shadow_takes_no_live_models_place(shop):
    store, ledger, one, two = shop
    put_behind(ledger, two, mode="shadow")

    found = deployed_file("btc", store, ledger)

    assert (found.id, found.mode) == (one.id, "live")


def test_a_model_whose_file_vanished_leaves_the_old_one_in_place(shop):
    store, ledger, one, two = shop
    with following(shop) as server:
        shutil.rmtree(two.path)
        put_behind(ledger, two)
        wait_for_metric(server, REFUSED, "1")
        during = answered(server)
        add_artifact(store, 2)
        wait_for_metric(server, SWAPS, "1")
        after = answered(server)

    assert during[:2] == (200, one.id)
    assert after[:2] == (200, two.id)


def test_a_model_that_is_not_its_manifests_is_refused(shop):
    _, ledger, one, two = shop
    with following(shop) as server:
        damage(two.file("model.tar.gz"))
        put_behind(ledger, two)
        wait_for_metric(server, REFUSED, "1")
        found = answered(server)

    assert found[:2] == (200, one.id)


def test_metrics_tell_how_long_ago_a_model_was_made(shop):
    _, _, one, _ = shop
    manifest = json.loads((one.path / "manifest.json").read_text())
    manifest["created_at"] = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    (one.path / "manifest.json").write_text(json.dumps(manifest))
    with following(shop) as server:
        found = metrics(server)
    labels = f'{{strategy="btc",tier="biggest",model="{one.id}"}}'
    assert 86_400 <= float(found[f"trademl_model_age_seconds{labels}"]) < 86_400 + 600


def test_a_server_does_not_start_with_a_model_that_is_not_its_manifests(shop):
    store, ledger, one, _ = shop
    damage(one.file("model.tar.gz"))

    with pytest.raises(StoreError, match="its manifest lists"):
        served_model(current_deployment("btc", ledger), store)


def test_a_ledger_that_is_away_is_counted_apart_and_comes_back(shop, tmp_path, caplog):
    _, ledger, one, two = shop
    put_behind(ledger, two, endpoint="other")  # all is in the database when it goes
    with following(shop) as server:
        with away(tmp_path / "ledger.db"):
            wait_until(lambda: int(metrics(server)[AWAY]) >= 3)
            found, refusals = answered(server), metrics(server)[REFUSED]
        put_behind(ledger, two)
        wait_for_metric(server, SWAPS, "1")

    assert found[:2] == (200, one.id)
    assert refusals == "0"
    assert caplog.text.count("the ledger is away") == 1


def test_a_ledger_that_cannot_be_read_has_an_error_of_its_own(shop, tmp_path):
    store, ledger, *_ = shop
    (tmp_path / "ledger.db").unlink()
    (tmp_path / "ledger.db").mkdir()

    with pytest.raises(LedgerAwayError):
        deployed_file("btc", store, ledger)


def test_quotas_of_the_settings_reach_the_strategies(shop):
    store, ledger, _one, two = shop
    put_behind(ledger, two, endpoint="alice")
    serving = ServingConfig(quotas={"btc": Quota(0.7, priority=2)})

    btc, alice = strategies_of(store, ledger, ("btc", "alice"), serving=serving)

    assert btc.quota == Quota(0.7, priority=2)
    assert alice.quota == Quota()


def test_a_quota_of_an_unknown_endpoint_is_refused(shop):
    store, ledger, *_ = shop

    with pytest.raises(ConfigError, match="serving.quotas has one of bct, .* endpoints: btc"):
        strategies_of(store, ledger, serving=ServingConfig(quotas={"bct": Quota(0.7)}))


@pytest.fixture
def network(shop):
    """A network of the same columns as an artifact, its dataset proven."""
    pytest.importorskip("torch")
    from trademl.train.network_config import NetworkConfig
    from trademl.train.network_file import NetworkModel, save_network
    from trademl.train.networks import build_network

    store, *_ = shop
    config = NetworkConfig("temporal_convolution", n_steps=2, width=4, depth=1)
    state = build_network(config, 2, seed=1).state_dict()
    weights = {name: weight.detach().numpy() for name, weight in state.items()}
    identity = "network-0123456789ab"
    with store.create(identity, parents=["dataset-1"], parameters={}) as draft:
        model = NetworkModel(config, weights, "logistic", 0.5, ("a", "b"))
        save_network(model, draft.path / "model.tar.gz")
    return store.get(identity)


def prove(ledger):
    proof = {"id": "proof-1", "dataset_id": "dataset-1", "is_proven": True, "evidence": {}}
    ledger.record(tables.Proof(**proof))


def test_a_network_stands_above_the_deployed_model_and_stays_when_that_changes(shop, network):
    store, ledger, _, two = shop
    prove(ledger)
    serving = ServingConfig("btc", rungs=(RungConfig(network.id), RungConfig("deployed")))
    strategies = strategies_of(store, ledger, serving=serving)
    newest = partial(deployed_file, store=store, ledger=ledger)
    with BackgroundServer(strategies, SWIFT, newest=newest) as server:
        ask(server)  # the network is loaded when it is first asked for
        put_behind(ledger, two)
        wait_for_metric(server, SWAPS, "1")
        wait_until(lambda: ask(server)[1]["X-Trademl-Model"] == network.id)
        _, headers, _ = ask(server)

    assert headers["X-Trademl-Tier"] == "biggest"
    assert headers["X-Trademl-Mode"] == "shadow"  # selection has not judged it
    assert strategies[0].followed == 1


def test_a_network_whose_dataset_is_unproven_is_no_rung(shop, network):
    store, ledger, *_ = shop
    serving = ServingConfig("btc", rungs=(RungConfig(network.id), RungConfig("deployed")))

    with pytest.raises(DataError, match="dataset-1 was not verified"):
        strategies_of(store, ledger, serving=serving)


def test_the_deployed_model_computes_on_the_processor_alone(shop):
    store, ledger, *_ = shop
    serving = ServingConfig("btc", rungs=(RungConfig("deployed", "cuda"),))

    with pytest.raises(ConfigError, match="which computes on the processor alone"):
        strategies_of(store, ledger, serving=serving)
