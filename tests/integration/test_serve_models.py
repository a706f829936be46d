"""SageMaker's contract of a multi-model container, call by call, over HTTP."""

from __future__ import annotations

import http.client
import tarfile
from urllib.parse import urlsplit

import numpy as np
import orjson
import pytest

from hosting_cases import score_of, served_strategy
from trademl.errors import ServeError
from trademl.serve.client import predict
from trademl.serve.freshness import Freshness
from trademl.serve.server import BackgroundServer, ServerConfig
from trademl.serve.serving_folder import write_serving
from trademl.train.model import LinearModel, save_model


@pytest.fixture
def folder(tmp_path):
    """Two archives, and what the platform unpacked of the first one."""
    for n in (1, 2):
        weights_D = np.array([float(n), 0.0])
        model = LinearModel(weights_D, 0.0, np.zeros(2), np.ones(2), 0.5, ("a", "b"))
        save_model(model, tmp_path / f"{n}.tar.gz")
    with tarfile.open(tmp_path / "1.tar.gz") as tar:
        tar.extractall(tmp_path / "id" / "model", filter="data")
    return tmp_path


@pytest.fixture
def server(folder):
    with BackgroundServer((), ServerConfig(port=0, model_folder=folder)) as server:
        yield server


def call(server, method, path, document=None, **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    body = document if isinstance(document, bytes | None) else orjson.dumps(document)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, orjson.loads(answer) if answer else None


def load(server, name, path):
    return call(server, "POST", "/models", {"model_name": name, "url": str(path)})


def score(server, name):
    status, answer = call(
        server, "POST", f"/models/{name}/invoke", b"1,1", **{"Content-Type": "text/csv"}
    )
    return status, answer["predictions"][0]["score"] if status == 200 else answer["error"]


def sigmoid(x):
    return float(np.float32(1 / (1 + np.exp(-x))))


def test_a_server_without_models_is_healthy(server):
    assert call(server, "GET", "/ping") == (200, None)
    assert call(server, "GET", "/models") == (200, {"models": []})


def test_models_are_loaded_and_each_answers_for_itself(server, folder):
    assert load(server, "one", folder / "id" / "model")[0] == 200
    assert load(server, "two", folder / "2.tar.gz")[0] == 200

    for name, weight in (("one", 1.0), ("two", 2.0)):
        status, found = score(server, name)
        assert status == 200
        assert found == pytest.approx(sigmoid(weight), abs=1e-7)


def test_a_model_that_is_loaded_is_a_409(server, folder):
    load(server, "one", folder / "1.tar.gz")

    assert load(server, "one", folder / "1.tar.gz")[0] == 409


def test_models_are_shown_in_camel_case(server, folder):
    url = str(folder / "1.tar.gz")
    load(server, "one", url)
    shown = {"modelName": "one", "modelUrl": url}

    assert call(server, "GET", "/models/one") == (200, shown)
    assert call(server, "GET", "/models") == (200, {"models": [shown]})


def test_long_lists_come_in_pages(server, folder):
    names = [f"m{n:03}" for n in range(101)]
    for name in names:
        assert load(server, name, folder / "1.tar.gz")[0] == 200

    _, first = call(server, "GET", "/models")
    _, second = call(server, "GET", f"/models?next_page_token={first['nextPageToken']}")

    assert [m["modelName"] for m in first["models"] + second["models"]] == names
    assert "nextPageToken" not in second


def test_an_unloaded_model_is_gone_and_may_come_back(server, folder):
    load(server, "one", folder / "1.tar.gz")

    assert call(server, "DELETE", "/models/one")[0] == 200
    assert call(server, "DELETE", "/models/one")[0] == 404
    assert call(server, "GET", "/models/one")[0] == 404
    assert score(server, "one")[0] == 404
    assert load(server, "one", folder / "2.tar.gz")[0] == 200
    assert score(server, "one")[1] == pytest.approx(sigmoid(2.0), abs=1e-7)


def test_a_model_without_room_is_a_507_until_another_leaves(folder):
    config = ServerConfig(port=0, model_folder=folder, memory_bytes=1_000_000)
    with BackgroundServer((), config) as roomy:
        load(roomy, "one", folder / "1.tar.gz")
        connection = http.client.HTTPConnection(urlsplit(roomy.url).netloc, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
    size = int(text.rsplit("trademl_model_bytes ", 1)[1])

    config = ServerConfig(port=0, model_folder=folder, memory_bytes=size * 3 // 2)
    with BackgroundServer((), config) as tight:
        assert load(tight, "one", folder / "1.tar.gz")[0] == 200
        assert load(tight, "two", folder / "2.tar.gz")[0] == 507
        call(tight, "DELETE", "/models/one")
        assert load(tight, "two", folder / "2.tar.gz")[0] == 200


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", ".hidden", "a\0b", 7, None])
def test_a_name_cannot_be_a_path(server, folder, name):
    assert load(server, name, folder / "1.tar.gz")[0] == 400


def test_nothing_outside_the_folder_is_read(server, folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "m.tar.gz"
    outside.write_bytes((folder / "1.tar.gz").read_bytes())
    (folder / "link.tar.gz").symlink_to(outside)

    for url in (outside, folder / ".." / outside.parent.name / "m.tar.gz", folder / "link.tar.gz"):
        status, answer = load(server, "one", url)
        assert (status, "expected an existing path below" in answer["error"]) == (400, True)


def test_an_archive_that_leads_out_of_its_folder_is_refused(server, folder):
    with tarfile.open(folder / "evil.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("../../evil")
        tar.addfile(entry)

    status, answer = load(server, "one", folder / "evil.tar.gz")

    assert status == 400
    assert "leads out of its folder" in answer["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model_name":"a"}', b'{"url":"/"}'])
def test_another_body_is_refused(server, body):
    assert call(server, "POST", "/models", body)[0] == 400


def test_an_archive_of_another_digest_is_refused(server, folder):
    asked = {"model_name": "one", "url": str(folder / "1.tar.gz"), "sha256": "0" * 64}

    status, answer = call(server, "POST", "/models", asked)

    assert status == 400
    assert "it was changed or damaged" in answer["error"]


def test_a_server_of_one_model_has_no_models_path(folder):
    with BackgroundServer((), ServerConfig(port=0)) as server:
        assert call(server, "GET", "/models")[0] == 404


def test_the_client_asks_a_model_by_its_name(server, folder):
    load(server, "a.b-1", folder / "2.tar.gz")
    rows_ND = np.ones((1, 2), np.float32)

    answers = predict(server.url, rows_ND, model="a.b-1")

    assert (answers.score_N.tolist(), answers.model_id) == ([sigmoid(2)], "a.b-1")
    with pytest.raises(ServeError, match="answered 404: model 'b/c' is not|the model's name is"):
        predict(server.url, rows_ND, model="b/c")
    with pytest.raises(ServeError, match="has models only: ask /models/{name}/invoke"):
        predict(server.url, rows_ND)


MEAN_ROW = np.array([[0.1, 0.0, -0.2]], np.float32)  # of the models of `served_strategy`


def unpacked(folder, *strategies):
    """Return a serving folder below the server's, as the platform unpacks its archive."""
    write_serving(strategies, folder / "serving.tar.gz", {})
    target = folder / "serving" / "model"
    with tarfile.open(folder / "serving.tar.gz") as tar:
        tar.extractall(target, filter="data")
    return target


def test_a_folder_says_what_its_model_is_called_and_by_which_rules_it_answers(server, folder):
    freshness = Freshness(max_spread=0.5)
    strategy = served_strategy(folder / "store", "es", 0.75, mode="shadow", freshness=freshness)

    assert load(server, "opaque", unpacked(folder, strategy))[0] == 200
    found = predict(server.url, MEAN_ROW, model="opaque")
    headers = {"Content-Type": "text/csv", "X-Trademl-On-Abstain": "error"}
    wide = call(
        server, "POST", "/models/opaque/invoke", b"1,1,1", **headers, **{"X-Trademl-Spread": "0.6"}
    )

    assert (found.model_id, found.mode) == (strategy.ladder[0].id, "shadow")
    assert found.score_N[0] == pytest.approx(score_of(0.75), abs=1e-6)
    assert (wide[0], "spread" in wide[1]["error"]) == (422, True)


def test_a_folder_of_a_ladder_is_refused_with_the_number_of_its_models(server, folder):
    status, answer = load(
        server, "one", unpacked(folder, served_strategy(folder / "store", "es", 0.5, 0.25))
    )

    assert status == 400
    assert "serving.json lists 2 models, expected one" in answer["error"]
    assert call(server, "GET", "/models") == (200, {"models": []})


def test_a_model_of_a_folder_that_links_out_of_it_is_refused(server, folder, tmp_path_factory):
    target = unpacked(folder, served_strategy(folder / "store"))
    (archive,) = (target / "models").iterdir()
    outside = tmp_path_factory.mktemp("outside") / "m.tar.gz"
    archive.rename(outside)
    archive.symlink_to(outside)

    status, answer = load(server, "one", target)

    assert status == 400
    assert "leads out of" in answer["error"]
