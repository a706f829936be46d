"""The server as an HTTP client sees it: every form in and out, every refusal."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trademl.etl.recordio import decode_predictions, encode_records
from trademl.serve.client import ping
from trademl.serve.server import BackgroundServer, ServedModel, ServerConfig

D = 5
REASONS = ("recall is 0.02, the floor is 0.25", "too few positives")
CSV, JSON = "text/csv", "application/json"
JSON_LINES, RECORDIO = "application/jsonlines", "application/x-recordio-protobuf"


class Sigmoid:
    columns = tuple(map(str, range(D)))
    schema_hash = "test"

    def predict(self, features_ND):
        score_N = self.scores(features_ND)
        return score_N, (score_N >= np.float32(0.6)).astype(np.float32)

    def scores(self, features_ND):
        weights_D = np.arange(1, D + 1, dtype=np.float32) / 10
        return (1 / (1 + np.exp(-(features_ND * weights_D).sum(axis=1)))).astype(np.float32)


MODEL = ServedModel(Sigmoid(), "m-1", "shadow", "refused", REASONS)
CONFIG = ServerConfig(port=0, max_body_bytes=200_000, linger_s=5.0)


@pytest.fixture(scope="module")
def server():
    with BackgroundServer(MODEL, CONFIG) as server:
        yield server


@pytest.fixture
def connection(server):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    yield connection
    connection.close()


@pytest.fixture
def features():
    return np.random.default_rng(7).standard_normal((40, D)).astype(np.float32)


def post(connection, body, content_type=CSV, **headers):
    connection.request("POST", "/invocations", body, {"Content-Type": content_type, **headers})
    response = connection.getresponse()
    return response, response.read()


def text_rows(features_ND):
    return [b",".join(str(float(x)).encode() for x in row_D) for row_D in features_ND]


def encoded(features_ND, content_type):
    rows = text_rows(features_ND)
    if content_type == CSV:
        return b"\n".join(rows)
    if content_type == JSON:
        return b'{"instances":[%b]}' % b",".join(b'{"features":[%b]}' % row for row in rows)
    if content_type == JSON_LINES:
        return b"\n".join(b'{"data":{"features":{"values":[%b]}}}' % row for row in rows)
    return encode_records(features_ND)


def decoded(body, content_type):
    if content_type == RECORDIO:
        return decode_predictions(body)
    rows = (
        orjson.loads(body)["predictions"]
        if content_type == JSON
        else [orjson.loads(line) for line in body.split(b"\n")]
    )
    return [
        np.array([row[name] for row in rows], np.float32) for name in ("score", "predicted_label")
    ]


@pytest.mark.parametrize("accept", [JSON, JSON_LINES, RECORDIO])
@pytest.mark.parametrize("content_type", [CSV, JSON, JSON_LINES, RECORDIO])
def test_every_form_in_and_out_gives_the_models_own_scores(
    connection, features, content_type, accept
):
    response, body = post(connection, encoded(features, content_type), content_type, Accept=accept)

    score_N, label_N = decoded(body, response.headers["Content-Type"])
    expected_N = Sigmoid().scores(features)
    assert (response.status, response.headers["Content-Type"]) == (200, accept)
    np.testing.assert_array_equal(score_N, expected_N)
    np.testing.assert_array_equal(label_N, expected_N >= 0.6)


def test_ping_and_predictions_say_how_the_model_stands(connection):
    rows = {"Content-Type": CSV}
    for method, path, body in (("GET", "/ping", None), ("POST", "/invocations", b"1,2,3,4,5")):
        connection.request(method, path, body, rows)
        response = connection.getresponse()
        response.read()

        assert response.status == 200
        assert response.headers["X-Trademl-Model"] == "m-1"
        assert response.headers["X-Trademl-Mode"] == "shadow"
        assert response.headers["X-Trademl-Status"] == "refused"
        assert response.headers["X-Trademl-Reasons"] == "; ".join(REASONS)


def test_a_prediction_says_where_it_came_from(connection):
    response, _ = post(connection, b"1,2,3,4,5", **{"X-Amzn-SageMaker-Inference-Id": "order-7"})

    assert response.headers["X-Trademl-Tier"] == "biggest"
    assert response.headers["X-Trademl-Reason"] == "normal"
    assert response.headers["X-Trademl-Age-Ms"] == "0"
    assert float(response.headers["X-Trademl-Queue-Ms"]) >= 0
    assert response.headers["X-Request-Id"] == "order-7"


def test_a_refused_model_says_why_in_the_body(connection):
    _, body = post(connection, b"1,2,3,4,5")

    assert orjson.loads(body)["model"]["reasons"] == list(REASONS)


def test_ping_is_empty(server, connection):
    ping(server.url)
    connection.request("GET", "/ping")
    response = connection.getresponse()

    assert (response.status, response.read()) == (200, b"")


def test_custom_attributes_come_back_verbatim(connection):
    attributes = "trace=1; Order=A-7"

    response, _ = post(
        connection, b"1,2,3,4,5", **{"X-Amzn-SageMaker-Custom-Attributes": attributes}
    )
    later, _ = post(connection, b"1,2,3,4,5")

    assert response.headers["X-Amzn-SageMaker-Custom-Attributes"] == attributes
    assert "X-Amzn-SageMaker-Custom-Attributes" not in later.headers


def test_one_connection_serves_many_requests_also_after_a_refusal(connection):
    post(connection, b"1,2,3,4,5")
    socket_before = connection.sock
    refused, body = post(connection, b"1,2\n")
    answered, _ = post(connection, b"1,2,3,4,5")

    assert (refused.status, answered.status) == (400, 200)
    assert orjson.loads(body) == {"error": "row 1 has 2 features, expected 5"}
    assert connection.sock is socket_before


@pytest.mark.parametrize(
    ("content_type", "body", "headers", "status"),
    [
        (CSV, b"1,2,3,4,5\n1,2,3,4,x\n", {}, 400),
        (JSON, b"{", {}, 400),
        (JSON_LINES, b"[]", {}, 400),
        (RECORDIO, b"\x0a\x23\xd7\xce\xff\xff\xff\xff", {}, 400),
        ("text/html", b"1,2,3,4,5", {}, 415),
        (CSV, b"1,2,3,4,5", {"Content-Encoding": "gzip"}, 415),
        (CSV, b"1,2,3,4,5", {"Accept": "image/png"}, 406),
        (CSV, b"1," * 100_001, {}, 413),
    ],
)
def test_a_refusal_is_one_line_of_json(connection, content_type, body, headers, status):
    response, answer = post(connection, body, content_type, **headers)

    assert response.status == status
    assert list(orjson.loads(answer)) == ["error"]
    assert b"\\n" not in answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("PUT", "/ping", 405), ("GET", "/invocations", 405)],
)
def test_unknown_paths_and_methods_are_refused(connection, method, path, status):
    connection.request(method, path)
    response = connection.getresponse()

    assert response.status == status
    assert list(orjson.loads(response.read())) == ["error"]


def test_the_query_of_a_path_is_ignored(connection):
    connection.request("GET", "/ping?from=monitor")

    assert connection.getresponse().status == 200


def test_a_chunked_body_is_one_body(connection, features):
    body = encoded(features, CSV)
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]

    connection.request(
        "POST", "/invocations", iter(parts), {"Content-Type": CSV}, encode_chunked=True
    )
    response = connection.getresponse()

    np.testing.assert_array_equal(decoded(response.read(), JSON)[0], Sigmoid().scores(features))


def test_many_clients_at_once_each_get_their_own_answer(server):
    def ask(n):
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
        rows_ND = np.random.default_rng(n).standard_normal((n % 7 + 1, D)).astype(np.float32)
        answers = [
            post(connection, encode_records(rows_ND), RECORDIO, Accept=RECORDIO) for _ in range(5)
        ]
        connection.close()
        expected_N = Sigmoid().scores(rows_ND)
        return all((decode_predictions(body)[0] == expected_N).all() for _, body in answers)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(64)))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content_type=st.sampled_from([CSV, JSON, JSON_LINES, RECORDIO])
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    body=st.binary(max_size=300),
)
def test_arbitrary_bytes_never_make_the_server_fail(connection, content_type, body):
    response, _ = post(connection, body, content_type)

    assert response.status in (200, 400, 413, 415)
