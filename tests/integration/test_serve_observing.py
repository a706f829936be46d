"""Request ids, logs and data capture of a running server, as its clients and its operator see them."""

from __future__ import annotations

import http.client
import json
import logging
import socket
from urllib.parse import urlsplit

import numpy as np
import pytest

from trademl.serve.batch import predict_files
from trademl.serve.capture import CaptureConfig
from trademl.serve.capture_file import read_captures
from trademl.serve.served import served
from trademl.serve.server import BackgroundServer, ServedModel, ServerConfig
from trademl.train.model import LinearModel

MODEL = LinearModel(
    np.array([1.0, -2.0]), 0.5, np.array([0.1, 0.2]), np.array([1.0, 3.0]), 0.5, ("a", "b")
)
ROWS = (b"1,2", b"0.25,-7\n3,4")


def ask(server, body, content_type="text/csv", path="/invocations", **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body, {"Content-Type": content_type, **headers})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response, answer


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, logger="trademl")

    def requests():
        return [record.fields for record in caplog.records if record.message == "request"]

    return requests


def test_one_id_is_in_the_answer_the_log_and_the_capture(tmp_path, logged):
    config = ServerConfig(port=0, log_per_s=0.0, capture=CaptureConfig(str(tmp_path)))
    with BackgroundServer(served(MODEL, "m-1"), config) as server:
        response, _ = ask(server, ROWS[0], X_Request_Id="order-7")

    (path,) = tmp_path.rglob("*.jsonl")
    meta = json.loads(path.read_text())["eventMetadata"]
    assert response.headers["X-Request-Id"] == "order-7"
    assert [line["request_id"] for line in logged()] == ["order-7"]
    assert meta["inferenceId"] == "order-7"
    assert "trademl-model=m-1" in meta["customAttributes"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/nowhere", b"1,2", 404), ("/invocations", b"1", 400), ("/invocations", bytes(2000), 413)],
)
def test_an_error_has_an_id_in_the_answer_and_in_the_log(path, body, status, logged):
    config = ServerConfig(port=0, log_per_s=0.0, max_body_bytes=1000)
    with BackgroundServer(served(MODEL, "m-1"), config) as server:
        response, answer = ask(server, body, path=path)

    (line,) = logged()
    assert response.status == line["status"] == status
    assert response.headers["X-Request-Id"] == line["request_id"] != ""
    assert line["error"] == json.loads(answer)["error"]


def test_a_token_that_is_none_is_logged_without_it(tmp_path, logged):
    tokens = tmp_path / "tokens"
    tokens.write_text("predict sixteen-characters\n")
    tokens.chmod(0o600)
    config = ServerConfig(port=0, log_per_s=0.0, token_file=tokens)
    with BackgroundServer(served(MODEL, "m-1"), config) as server:
        ask(server, ROWS[0], Authorization="Bearer wrong-but-long-enough")

    (line,) = logged()
    assert line["status"] == 401
    assert "wrong-but" not in json.dumps(line)


def test_a_request_that_is_no_http_is_logged(logged):
    with BackgroundServer(served(MODEL, "m-1"), ServerConfig(port=0, log_per_s=0.0)) as server:
        where = urlsplit(server.url)
        with socket.create_connection((where.hostname, where.port), timeout=10) as client:
            client.sendall(b"nonsense\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 400")

    assert [line["status"] for line in logged()] == [400]


class Fails:
    columns, schema_hash = ("a",), "test"

    def predict(self, features_ND):
        if features_ND[0, 0]:
            raise ZeroDivisionError("a defect")
        return features_ND[:, 0], features_ND[:, 0]


def test_a_failing_model_is_logged_with_its_traceback_and_the_request_with_its_id(caplog, logged):
    with BackgroundServer(
        ServedModel(Fails(), "m-1"), ServerConfig(port=0, log_per_s=0.0)
    ) as server:
        response, _ = ask(server, b"1", X_Request_Id="order-8")

    assert (response.status, response.headers["X-Request-Id"]) == (500, "order-8")
    assert [line["request_id"] for line in logged()] == ["order-8"]
    assert "ZeroDivisionError: a defect" in caplog.text


def test_figures_of_the_last_period_are_logged_when_the_server_ends(caplog):
    caplog.set_level(logging.INFO, logger="trademl")
    with BackgroundServer(served(MODEL, "m-1"), ServerConfig(port=0, emf_s=3600.0)) as server:
        for _ in range(3):
            ask(server, ROWS[1])

    documents = [json.loads(record.raw) for record in caplog.records if hasattr(record, "raw")]
    assert [(d["Strategy"], d["Requests"]) for d in documents] == [("default", 3), ("default", 3)]
    assert documents[0]["Rows"] == 6


@pytest.mark.parametrize("accept", ["application/json", "application/x-recordio-protobuf"])
def test_captured_requests_scored_again_by_the_same_model_give_what_was_answered(tmp_path, accept):
    config = ServerConfig(port=0, capture=CaptureConfig(str(tmp_path)))
    answers = []
    with BackgroundServer(served(MODEL, "m-1"), config) as server:
        for body in ROWS:
            _, answer = ask(server, body, Accept=accept)
            answers.append(answer)

    (path,) = tmp_path.rglob("*.jsonl")
    (scored,) = predict_files(MODEL, "m-1", [path], tmp_path / "out")
    again = [json.loads(line) for line in (tmp_path / "out").joinpath(f"{path.name}.jsonl").open()]
    assert [captured.output for captured in read_captures(path)] == answers
    assert scored.n_rows == 3
    if accept == "application/json":
        expected = [row for answer in answers for row in json.loads(answer)["predictions"]]
        assert again == expected


def test_captures_are_counted_in_the_metrics(tmp_path):
    config = ServerConfig(port=0, capture=CaptureConfig(str(tmp_path), flush_s=0.01))
    with BackgroundServer(served(MODEL, "m-1"), config) as server:
        ask(server, ROWS[0])
        while not list(tmp_path.rglob("*.jsonl")):
            pass
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
        connection.request("GET", "/metrics")
        shown = connection.getresponse().read().decode()
        connection.close()

    assert "\ntrademl_captured_total 1\n" in shown
    assert "\ntrademl_capture_dropped_total 0\n" in shown
