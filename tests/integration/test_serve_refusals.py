"""Every error that a server answers is counted by its status, wherever it was refused."""

from __future__ import annotations

import http.client
import json
import logging
import socket
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from serving_cases import Big, Small, linear_model, metrics, wait_until
from trademl.serve.freshness import Freshness
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy, ServerConfig
from trademl.train.model import save_model

TOKEN = "predict-token-0001"
CSV = {"Content-Type": "text/csv"}
CALLS = [
    ("POST", "/invocations", bytes(2000), CSV, 413),
    ("POST", "/invocations", b"1", CSV, 400),
    ("POST", "/invocations", b"1,1", {"Content-Type": "text/html"}, 415),
    ("POST", "/invocations", b"1,1", CSV | {"Accept": "text/html"}, 406),
    ("GET", "/invocations", None, {}, 405),
    ("POST", "/invocations", b"1,1", CSV | {"X-Trademl-Feature-Time-Ns": "1"}, 200),
    (
        *("POST", "/invocations", b"1,1"),
        CSV | {"X-Trademl-Feature-Time-Ns": "1", "X-Trademl-On-Abstain": "error"},
        422,
    ),
]
NOBODYS = [
    ("POST", "/invocations", b"1,1", CSV | {"X-Big": "x" * 20_000}, 431),
    ("GET", "/nowhere", None, {}, 404),
    ("POST", "/ping", b"", {}, 405),
    ("POST", "/invocations", b"1,1", CSV | {"X-Trademl-Strategy": "diana"}, 404),
]


def serving(*models, rule=None, **settings):
    ladder = tuple(ServedModel(model, f"m-{n}") for n, model in enumerate(models))
    strategy = ServedStrategy("btc", ladder, freshness=rule or Freshness())
    config = {"max_body_bytes": 1000} | settings
    return BackgroundServer((strategy,), ServerConfig(port=0, **config))


def call(server, method, path, body, headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


@contextmanager
def connected(server):
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as client:
        yield client


def refused(server, strategy="btc"):
    """Return what was counted, by status."""
    name = "trademl_refused_requests_total"
    mark = f'{name}{{strategy="{strategy}",status="'
    return {
        int(key.removeprefix(mark).removesuffix('"}')): int(value)
        for key, value in metrics(server).items()
        if key.startswith(mark)
    }


def test_errors_are_counted_by_status_for_the_strategy_that_was_asked():
    with serving(Small(), rule=Freshness(max_feature_age_s=2.0)) as server:
        for method, path, body, headers, status in (*CALLS, *NOBODYS):
            response = call(server, method, path, body, headers)
            assert response.status == status
            assert response.headers["X-Request-Id"]
        found, nobodys = refused(server), refused(server, "")

    assert found == {413: 1, 400: 1, 415: 1, 406: 1, 405: 1, 422: 1}
    assert nobodys == {431: 1, 404: 2, 405: 1}


def test_a_request_without_a_token_is_counted(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"predict {TOKEN}\n")
    tokens.chmod(0o600)
    allowed = {"Authorization": f"Bearer {TOKEN}"}
    with serving(Small(), token_file=tokens) as server:
        call(server, "POST", "/invocations", b"1,1", CSV)
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
        connection.request("GET", "/metrics", headers=allowed)
        text = connection.getresponse().read().decode()
        connection.close()

    assert 'trademl_refused_requests_total{strategy="btc",status="401"} 1\n' in text


@pytest.mark.parametrize(
    ("sent", "settings", "strategy", "status"),
    [
        (b"nonsense\r\n\r\n", {}, "", 400),
        (b"POST /invocations HTTP/1.1\r\nContent-Le", {"read_timeout_s": 0.05}, "", 408),
        (
            b"POST /invocations HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
            b"Content-Length: 3\r\n\r\n1,1",
            {},
            "btc",
            501,
        ),
    ],
)
def test_what_never_became_a_request_is_counted(sent, settings, strategy, status):
    with serving(Small(), **settings) as server:
        with connected(server) as client:
            client.sendall(sent)
            assert client.recv(1000).startswith(b"HTTP/1.1 %d" % status)
        found = refused(server, strategy)

    assert found == {status: 1}


def test_a_connection_too_many_is_counted():
    with serving(Small(), max_connections=1) as server:
        with connected(server) as first:
            first.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
            assert first.recv(1000).startswith(b"HTTP/1.1 200")
            with connected(server) as second:
                assert second.recv(1000).startswith(b"HTTP/1.1 503")
        wait_until(lambda: refused(server, "").get(503, 0) > 0)


def test_an_answer_that_came_late_is_counted_once():
    class Broken(Big):
        def predict(self, features_ND):
            if features_ND.any():
                raise RuntimeError("a defect")
            return super().predict(features_ND)

    with serving(Broken()) as server:
        answered = [call(server, "POST", "/invocations", b"1,%d" % n, CSV) for n in range(2)]
        found = refused(server)

    assert [(a.status, bool(a.headers["X-Request-Id"])) for a in answered] == [(500, True)] * 2
    assert found == {500: 2}


def test_errors_of_models_over_http_are_counted(tmp_path):
    save_model(linear_model(1.0), tmp_path / "1.tar.gz")
    wanted = json.dumps({"model_name": "one", "url": str(tmp_path / "1.tar.gz")}).encode()
    nothing = json.dumps({"model_name": "two", "url": str(tmp_path)}).encode()
    with BackgroundServer((), ServerConfig(port=0, model_folder=tmp_path)) as server:
        asked = [
            ("POST", "/models", wanted, {}),
            ("POST", "/models", wanted, {}),
            ("POST", "/models", nothing, {}),
            ("POST", "/models/one/invoke", b"1", CSV),
            ("POST", "/models/two/invoke", b"1,1", CSV),
        ]
        statuses = [call(server, *one).status for one in asked]
        found, nobodys = refused(server, "models/one"), refused(server, "")

    assert statuses == [200, 409, 400, 400, 404]
    assert found == {400: 1}
    assert nobodys == {409: 1, 400: 1, 404: 1}


def test_cloudwatch_is_told_of_all_of_them(caplog):
    caplog.set_level(logging.INFO, logger="trademl")
    with serving(Small(), emf_s=3600.0) as server:
        call(server, "POST", "/invocations", bytes(2000), CSV)
        for _ in range(2):
            call(server, "GET", "/nowhere", None, {})

    told = [json.loads(record.raw) for record in caplog.records if hasattr(record, "raw")]
    assert [(d.get("Strategy"), d["Refused"]) for d in told] == [("btc", 1), (None, 2)]
    assert told[1]["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[]]
