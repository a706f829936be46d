"""``trademl train --network`` and what stands beside it, through the command line."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from running import one_line
from trademl.backtest.jobs import backtest_model
from trademl.errors import DataError, StoreError
from trademl.etl.dataset import load_split
from trademl.etl.recipe import read_recipe
from trademl.etl.recordio import write_recordio
from trademl.ledger import tables
from trademl.market.costs import Costs
from trademl.pipeline.promotion import promote_model
from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace
from trademl.serve.batch import predict_files
from trademl.serve.deployments import ServingConfig, deployed_strategies
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.server import BackgroundServer
from trademl.store.artifacts import ArtifactStore
from trademl.train.card import model_card
from trademl.train.evaluations import evaluate_model
from trademl.train.gate import GateConfig
from trademl.train.jobs import select_model
from trademl.train.model import load_model
from trademl.train.network_file import load_network, save_network
from trademl.train.proof import check_proof
from trademl.train.selection import SelectionFloors
from trademl.train.verdicts import gate_model


@pytest.fixture(scope="module")
def workspace(finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("networks") / "ws"
    shutil.copytree(finished[0], found)
    return found


@pytest.fixture(scope="module")
def trained(trademl, workspace) -> dict:
    done = trademl("train", "--network", "--workspace", workspace, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_network_becomes_an_artifact_that_predicts(trained, workspace):
    store = ArtifactStore(workspace / "artifacts")
    network = store.get(trained["id"])
    model = load_network(network.file("model.tar.gz"))
    rows = load_split(store.newest("dataset"), "validation")

    score_N, _ = model.predict(rows.features_ND)
    assert np.isfinite(score_N).all()
    assert (model.kind, model.schema_hash) == (trained["kind"], trained["schema_hash"])
    assert set(network.manifest["files"]) == {"model.tar.gz", "history.json"}


def test_a_trained_network_is_not_trained_again(trained, trademl, workspace):
    done = trademl("train", "--network", "--workspace", workspace, "--json")

    assert f"kept {trained['id']}" in done.stderr
    assert json.loads(done.stdout) == trained


def test_partitions_that_no_process_can_hold_are_one_line(trademl, workspace, tmp_path):
    block = tmp_path / "diana.py"
    block.write_text(
        "distribution={'smdistributed': {'modelparallel': {'enabled': True, 'parameters': "
        "{'partitions': 2, 'microbatches': 8, 'ddp': True}}}, "
        "'mpi': {'enabled': True, 'processes_per_host': 1}},"
    )

    done = trademl("train", "--distribution", block, "--workspace", workspace)

    assert done.returncode == 1
    assert "(--nproc) to 2 or another multiple of 2" in one_line(done)


def test_a_plan_for_devices_that_are_not_here(trademl, workspace):
    arguments = ("--explain-plan", "--nproc", "8", "--device-memory", "80", "--json")
    done = trademl("train", *arguments, "--workspace", workspace)

    found = json.loads(done.stdout)
    assert found["measured"] is None
    assert found["chosen"]["dp"] * found["chosen"]["pp"] == 8
    assert all(candidate["fits"] for candidate in found["candidates"])


def test_hyperparameters_of_linear_learner_are_not_a_networks(trademl, workspace):
    done = trademl("train", "--network", "--hp", "wd=1", "--workspace", workspace)

    assert done.returncode == 2
    assert "--hp is for Linear Learner" in done.stderr


# From here on in this process: a network beside its linear twin, through everything a model goes.


@pytest.fixture(scope="module")
def opened(trained, workspace):
    with Workspace(workspace) as found:
        yield found


@pytest.fixture(scope="module")
def selected(trained, opened):
    network = opened.store.get(trained["id"])
    floors = SelectionFloors()
    return select_model(network, floors, opened.store, opened.ledger, seed=3)


@pytest.fixture(scope="module")
def test_rows(selected, opened):
    return load_split(opened.store.get(selected.manifest["parents"][1]), "test")


def test_the_ledger_knows_a_network_as_a_study_of_one_trial(trained, opened):
    study = opened.ledger.get(tables.Study, trained["id"])
    (trial,) = opened.ledger.rows(tables.Trial, study_id=trained["id"])

    assert study.dataset_id == opened.store.newest("dataset").id
    assert trial.objective == trained["validation_loss"]
    assert json.loads(trial.hyperparameters["network"])["kind"] == "temporal_convolution"


def test_selection_publishes_a_network_as_a_model(selected, opened, trained):
    row = opened.ledger.get(tables.Model, selected.id)
    model = load_network(selected.file("model.tar.gz"))

    assert (row.study_id, row.status) == (trained["id"], model.status)
    assert model.parents == tuple(selected.manifest["parents"])
    assert model.reasons == tuple(row.reasons)


def test_a_networks_card_lies_beside_it(selected, opened):
    card = json.loads(selected.file("card.json").read_bytes())
    text = selected.file("card.md").read_text()

    assert card["kind"] == "network binary classifier"
    assert card["hash"]["model.tar.gz"] == selected.manifest["files"]["model.tar.gz"]["sha256"]
    assert all(f["baseline"] is not None for f in card["figures"])
    assert "what it learned cannot be read off its weights" in text
    assert model_card(selected, opened.store, opened.ledger)["figures"] == card["figures"]


def test_a_network_that_is_not_selected_has_no_card(trained, opened):
    with pytest.raises(StoreError, match="run trademl models select network-"):
        model_card(opened.store.get(trained["id"]), opened.store, opened.ledger)


def test_the_gate_judges_a_network(selected, opened):
    verdict = gate_model(selected, "nets", GateConfig(), opened.store, opened.ledger, seed=3)
    assert verdict.model_id == selected.id
    assert verdict.verdict == "reject"  # a random walk has no edge


def test_a_look_of_a_network_counts_one_model(selected, opened):
    evaluate_model(selected, opened.store, opened.ledger)
    look = opened.ledger.get(tables.Look, selected.manifest["parents"][0])
    assert (look.n_trials, look.n_models) == (1, 1)


def test_a_network_is_traded_in_every_engine(selected, opened):
    found = backtest_model(selected, Costs(fee_per_unit=0.05), opened.store, opened.ledger)
    assert found.metrics["engines"] == ["compiled", "backtrader"]
    assert opened.ledger.get(tables.Backtest, found.id).model_id == selected.id


def test_a_network_whose_scaler_saw_other_rows_is_not_deployed(selected, opened, tmp_path):
    model = load_network(selected.file("model.tar.gz"))
    weights = dict(model.weights) | {"layers.0.mean_D": model.mean_D + np.float32(1e-3)}
    save_network(replace(model, weights=weights), tmp_path / "model.tar.gz")
    tampered = replace(selected, path=tmp_path)

    check_proof(selected, opened.store, opened.ledger)
    with pytest.raises(DataError, match="its mean of column 0 is"):
        check_proof(tampered, opened.store, opened.ledger)


class Gated:
    """A model that keeps callers waiting while it is told to."""

    def __init__(self, model):
        self.columns, self.schema_hash = model.columns, model.schema_hash
        self.may_go = threading.Event()
        self.may_go.set()
        self._model = model

    def predict(self, features_ND):
        self.may_go.wait(10)
        return self._model.predict(features_ND)


@pytest.fixture(scope="module")
def served(selected, opened):
    """The network as champion, its linear twin below it: the ladder that the verbs make."""
    strategy = Strategy(name="nets", serving=ServingConfig(endpoint="nets"))
    promote_model(selected, strategy, opened, force="a drill")
    linear = next(m for m in opened.store.all_of("model") if m.id != selected.id)
    (found,) = deployed_strategies(
        ["nets"], opened.store, opened.ledger,
        policy=LadderPolicy(deadline_ms=10_000), freshness=Freshness(), smaller=[linear.id],
    )  # fmt: skip
    biggest, smallest = found.ladder
    gated = Gated(biggest.model)
    ladder = (replace(biggest, model=gated), smallest)
    with BackgroundServer(replace(found, ladder=ladder)) as server:
        yield server, gated, linear


def ask(server, rows, **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    body = json.dumps({"instances": [{"features": row} for row in rows.tolist()]})
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json", **sent})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    scores = [p["score"] for p in answer["predictions"]]
    return response.headers["X-Trademl-Tier"], response.headers["X-Trademl-Model"], scores


def test_the_biggest_tier_is_the_network_as_it_was_trained(served, selected, opened, trained):
    server, _, _ = served
    dataset = opened.store.get(selected.manifest["parents"][1])
    rows = load_split(dataset, "validation")
    tier, model_id, scores = ask(server, rows.features_ND)

    assert (tier, model_id) == ("biggest", selected.id)
    # the loss that training measured, from what the server answers
    score_N, label_N = np.array(scores), rows.label_N
    loss = -np.where(label_N == 1, np.log(score_N), np.log1p(-score_N)).mean()
    assert loss == pytest.approx(trained["validation_loss"], rel=1e-5)
    expected = load_network(selected.file("model.tar.gz")).scores(rows.features_ND)
    np.testing.assert_allclose(score_N, expected, atol=1e-6)


def test_while_the_network_is_busy_its_linear_twin_answers(served, test_rows):
    server, gated, linear = served
    ask(server, test_rows.features_ND[:1])
    gated.may_go.clear()
    try:
        tier, model_id, scores = ask(server, test_rows.features_ND[:1], X_Trademl_Deadline_Ms="200")
    finally:
        gated.may_go.set()

    assert (tier, model_id) == ("smallest", linear.id)
    expected = load_model(linear.file("model.tar.gz")).scores(test_rows.features_ND[:1])
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_columns_served_are_the_steps_and_channels_that_the_network_takes(selected, opened):
    model = load_network(selected.file("model.tar.gz"))
    recipe = read_recipe(opened.store.get(selected.manifest["parents"][1]).file("schema.json"))

    n_channels, n_static = model.config.channels(recipe.feature_dim)
    assert len(model.columns) == recipe.feature_dim
    assert n_channels * model.config.n_steps + n_static == recipe.feature_dim


def test_a_network_scores_whole_files(selected, opened, test_rows, tmp_path):
    write_recordio(tmp_path / "rows.recordio", test_rows.features_ND, test_rows.label_N)
    model = load_model(selected.file("model.tar.gz"))
    (scored,) = predict_files(model, selected.id, [tmp_path / "rows.recordio"], tmp_path / "out")

    lines = Path(scored.path).read_text().splitlines()
    found = [json.loads(line)["score"] for line in lines]
    np.testing.assert_allclose(found, model.scores(test_rows.features_ND), atol=1e-6)
