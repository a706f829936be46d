"""Models that take over while requests arrive: real files, over HTTP, one server."""

from __future__ import annotations

import dataclasses
import http.client
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import orjson
import pytest

from trademl.serve.model_pool import ModelFile
from trademl.serve.server import BackgroundServer, ServedStrategy, ServerConfig
from trademl.train.model import LinearModel, save_model

SWIFT = ServerConfig(port=0, follow_s=0.01)


@pytest.fixture
def files(tmp_path):
    """Two models that score the row 1,1 differently, and one of other columns."""
    found = {}
    for name, weight, columns in (("one", 1.0, "ab"), ("two", 2.0, "ab"), ("other", 3.0, "xy")):
        path = tmp_path / f"{name}.tar.gz"
        weights_D = np.array([weight, 0.0])
        save_model(LinearModel(weights_D, 0.0, np.zeros(2), np.ones(2), 0.5, tuple(columns)), path)
        found[name] = ModelFile(name, str(path), mode="live")
    return found


SCORES = {name: float(np.float32(1 / (1 + np.exp(-w)))) for name, w in (("one", 1), ("two", 2))}


class Caller:
    """Asks again and again on one connection, in a thread, and keeps what it was told."""

    def __init__(self, server):
        self.answers: list[tuple[int, str, float]] = []
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()
        self._connection.close()

    def _work(self):
        while not self._is_over.is_set():
            self.answers.append(ask(self._connection))


def ask(connection):
    connection.request("POST", "/invocations", b"1,1", {"Content-Type": "text/csv"})
    response = connection.getresponse()
    answer = orjson.loads(response.read())
    return response.status, response.headers["X-Trademl-Model"], answer["predictions"][0]["score"]


def read(server, path, name=None):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def counter(server, name):
    _, text = read(server, "/metrics")
    key = f'trademl_{name}_total{{strategy="btc"}} '
    return int(next(line for line in text.splitlines() if line.startswith(key)).rsplit(" ", 1)[1])


def wait_for(server, name, value):
    until = time.monotonic() + 20
    while (found := counter(server, name)) < value:
        assert time.monotonic() < until, (name, found)
        time.sleep(0.005)


def running(files, wanted):
    return BackgroundServer(
        ServedStrategy("btc", (files["one"],)), SWIFT, newest=lambda _: wanted[0]
    )


def test_no_request_fails_or_is_mixed_while_models_take_over(files):
    wanted = [files["one"]]
    with running(files, wanted) as server, Caller(server) as a, Caller(server) as b:
        for n in range(1, 11):
            wanted[0] = files["two" if n % 2 else "one"]
            wait_for(server, "model_swaps", n)
    answers = a.answers + b.answers

    assert {status for status, _, _ in answers} == {200}
    assert {model for _, model, _ in answers} == {"one", "two"}
    assert all(score == pytest.approx(SCORES[model], abs=1e-7) for _, model, score in answers)


def test_the_same_model_may_become_live(files):
    wanted = [dataclasses.replace(files["one"], mode="shadow")]
    with running(files, wanted) as server:
        wait_for(server, "model_swaps", 1)
        response, _ = read(server, "/ping")

    assert response.headers["X-Trademl-Mode"] == "shadow"


@pytest.mark.parametrize("fault", ["damaged", "missing", "other columns"])
def test_a_model_that_cannot_take_over_leaves_the_old_one_in_place(files, fault, caplog):
    bad = {
        "damaged": dataclasses.replace(files["two"], sha256="0" * 64),
        "missing": dataclasses.replace(files["two"], location="/nowhere/model.tar.gz"),
        "other columns": files["other"],
    }[fault]
    wanted = [files["one"]]
    with running(files, wanted) as server, Caller(server) as caller:
        wanted[0] = bad
        wait_for(server, "model_swaps_refused", 1)
        wanted[0] = files["two"]  # and a sound one still can
        wait_for(server, "model_swaps", 1)
        refusals = counter(server, "model_swaps_refused")

    assert {status for status, _, _ in caller.answers} == {200}
    assert {model for _, model, _ in caller.answers} <= {"one", "two"}
    assert refusals == 1
    assert "btc: no new model takes over: " in caplog.text
