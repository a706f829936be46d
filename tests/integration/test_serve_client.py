"""The client against this project's server, and against servers that misbehave."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from serving_cases import port_of_ones_own
from trademl.errors import ServeError
from trademl.serve import questions
from trademl.serve.client import ping, predict
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy, ServerConfig

D = 4
CSV, JSON = "text/csv", "application/json"
JSON_LINES, RECORDIO = "application/jsonlines", "application/x-recordio-protobuf"


class Mean:
    columns = tuple(map(str, range(D)))
    schema_hash = "test"

    def predict(self, features_ND):
        score_N = self.scores(features_ND)
        return score_N, (score_N >= np.float32(0.0)).astype(np.float32)

    def scores(self, features_ND):
        return features_ND.mean(axis=1, dtype=np.float64).astype(np.float32)


class Steps:
    def __init__(self):
        self.seen = []

    def step(self, name, detail=""):
        self.seen.append(name)

    def advance(self, done, total):
        self.seen.append((done, total))

    def done(self, detail=""):
        self.seen.append(detail)


@pytest.fixture(scope="module")
def url():
    model = ServedModel(Mean(), "m-1", "shadow", "refused", ("recall is 0.02", "too few"))
    with BackgroundServer(model) as server:
        yield server.url


@pytest.fixture
def features():
    return np.random.default_rng(3).standard_normal((1_234, D)).astype(np.float32)


@contextmanager
def server_that_says(*answers):
    """Give a URL whose server sends one answer per connection, whatever it is asked."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work():
        for answer in answers:
            client, _ = listener.accept()
            with client:
                read_request(client)
                client.sendall(answer)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(timeout=60)


def read_request(client):
    """Read all of it: who closes before is taken for one who cut the connection."""
    received = b""
    while part := client.recv(65_536):
        received += part
        head, is_whole, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if is_whole and len(body) >= int(length[1] if length else 0):
            return


def ok(body, head=b"Content-Type: application/json\r\n"):
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


ONE_ROW = np.zeros((1, D), np.float32)


@pytest.mark.parametrize("accept", [JSON, JSON_LINES, RECORDIO])
@pytest.mark.parametrize("content_type", [CSV, JSON, JSON_LINES, RECORDIO])
def test_every_form_gives_the_models_own_scores(url, features, content_type, accept):
    predictions = predict(url, features, content_type=content_type, accept=accept)

    expected_N = Mean().scores(features)
    np.testing.assert_array_equal(predictions.score_N, expected_N)
    np.testing.assert_array_equal(predictions.label_N, expected_N >= 0)
    assert predictions.score_N.dtype == predictions.label_N.dtype == np.float32


def test_the_models_standing_comes_with_its_predictions(url):
    predictions = predict(url, ONE_ROW)

    assert (predictions.model_id, predictions.mode, predictions.status) == (
        "m-1",
        "shadow",
        "refused",
    )
    assert predictions.reasons == ("recall is 0.02", "too few")


def test_progress_counts_rows(url, features):
    steps = Steps()

    predict(url, features, progress=steps)

    assert steps.seen == ["predict", (500, 1234), (1000, 1234), (1234, 1234), "1234 rows"]


def test_batches_shrink_until_a_request_fits(url, features, monkeypatch):
    monkeypatch.setattr(questions, "MAX_REQUEST_BYTES", 1_000)

    predictions = predict(url, features, content_type=CSV)

    np.testing.assert_array_equal(predictions.score_N, Mean().scores(features))


def test_a_row_too_large_for_any_request_is_named(url, features, monkeypatch):
    monkeypatch.setattr(questions, "MAX_REQUEST_BYTES", 10)

    with pytest.raises(ServeError, match="row 1 alone takes"):
        predict(url, features, content_type=CSV)


@pytest.mark.parametrize(
    ("features", "arguments", "message"),
    [
        (np.zeros((0, D), np.float32), {}, r"shape \(0, 4\): expected rows and columns"),
        (np.zeros(D, np.float32), {}, r"shape \(4,\): expected rows and columns"),
        (np.array([[0.0] * D, [0, np.nan, 0, 0]]), {}, "row 2, feature 2 is not a finite number"),
        (ONE_ROW, {"content_type": "text/html"}, "cannot write 'text/html': expected one of"),
        (ONE_ROW, {"accept": "text/csv"}, "cannot read 'text/csv': expected one of"),
        (ONE_ROW, {"batch_rows": 0}, "batch_rows is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_is(url, features, arguments, message):
    with pytest.raises(ServeError, match=message):
        predict(url, features, **arguments)


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://host", "http://", "", "http://host:port", "http://["]
)
def test_an_address_must_be_one(url):
    with pytest.raises(ServeError, match="is no server's address: expected http://host:port"):
        ping(url)


def test_the_servers_own_words_are_quoted(url):
    with pytest.raises(ServeError, match="answered 400: row 1 has 2 features, expected 4"):
        predict(url, np.zeros((1, 2), np.float32), content_type=CSV)


def test_nothing_there_is_one_line():
    with port_of_ones_own() as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(ServeError, match=f"nothing answers at {url}: start a server there"):
            predict(url, ONE_ROW)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "broke off"),
        (b"nonsense\r\n\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "broke off"),
        (
            b"HTTP/1.1 502 Bad\r\nContent-Length: 9\r\n\r\n<h1>\n</h1>"[:-1],
            "answered 502: <h1> </h1",
        ),
        (b"HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n", "answered 500: no body"),
        (ok(b"{}"), "cannot be understood: {}"),
        (ok(b"[1"), "cannot be understood"),
        (ok(b'{"predictions":[{"score":null,"predicted_label":0}]}'), "cannot be understood"),
        (ok(b'{"predictions":[{"predicted_label":1}]}'), "cannot be understood"),
        (ok(b'{"predictions":[]}'), "answered 0 predictions for 1 rows"),
        (ok(b"0.5", b"Content-Type: text/plain\r\n"), "cannot be understood: 0.5"),
        (ok(b"\x0a\x23", b"Content-Type: %b\r\n" % RECORDIO.encode()), "cannot be understood"),
    ],
)
def test_a_server_that_misbehaves_is_one_line(answer, message):
    with server_that_says(answer) as url, pytest.raises(ServeError, match=message) as caught:
        predict(url, ONE_ROW, timeout_s=60)

    assert "\n" not in str(caught.value)


def test_a_silent_server_times_out():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServeError, match="broke off: timed out"):
            ping(url, timeout_s=0.05)


ROW_ANSWER = b'{"predictions":[{"score":0.5,"predicted_label":1}]}'


def test_a_connection_closed_between_requests_is_opened_again():
    with server_that_says(ok(ROW_ANSWER), ok(ROW_ANSWER)) as url:
        predictions = predict(url, np.zeros((2, D), np.float32), batch_rows=1, timeout_s=60)

    np.testing.assert_array_equal(predictions.score_N, [0.5, 0.5])
    assert predictions.model_id == ""


def test_a_model_that_changes_midway_is_an_error():
    answers = [
        ok(ROW_ANSWER, b"Content-Type: application/json\r\nX-Trademl-Model: %b\r\n" % name)
        for name in (b"old", b"new")
    ]
    with server_that_says(*answers) as url, pytest.raises(ServeError, match="from old to new"):
        predict(url, np.zeros((2, D), np.float32), batch_rows=1, timeout_s=60)


class Shares(Mean):
    """Scores three classes."""

    def predict(self, features_ND):
        score_NK = self.scores(features_ND)
        return score_NK, score_NK.argmax(axis=1)

    def scores(self, features_ND):
        return features_ND[:, :3].astype(np.float32)


@pytest.mark.parametrize("accept", [JSON, JSON_LINES, RECORDIO])
def test_scores_of_several_classes_are_understood(features, accept):
    with BackgroundServer(ServedModel(Shares(), "m")) as server:
        predictions = predict(server.url, features, accept=accept)

    np.testing.assert_array_equal(predictions.score_N, features[:, :3])
    np.testing.assert_array_equal(predictions.label_N, features[:, :3].argmax(axis=1))


def test_scores_that_differ_in_number_are_an_error():
    both = b'{"predictions":[{"score":[0.5,0.5]},{"score":[1]}]}'
    with server_that_says(ok(both)) as url, pytest.raises(ServeError, match="understood"):
        predict(url, np.zeros((2, D), np.float32), timeout_s=60)

    answers = [ok(b'{"predictions":[{"score":%b}]}' % score) for score in (b"[0.5,0.5]", b"0.5")]
    with server_that_says(*answers) as url, pytest.raises(ServeError, match="number of classes"):
        predict(url, np.zeros((2, D), np.float32), batch_rows=1, timeout_s=60)


def test_the_strategy_that_is_named_answers():
    class Negative(Mean):
        def scores(self, features_ND):
            return -super().scores(features_ND)

    rows_ND = np.ones((2, D), np.float32)
    both = [
        ServedStrategy(name, (ServedModel(model(), f"m-{name}"),))
        for name, model in (("btc", Mean), ("alice", Negative))
    ]
    with BackgroundServer(both) as server:
        named = predict(server.url, rows_ND, strategy="alice")
        with pytest.raises(ServeError, match="no strategy 'diana': this server has btc, alice"):
            predict(server.url, rows_ND, strategy="diana")

    assert (named.score_N.tolist(), named.model_id) == ([-1.0, -1.0], "m-alice")


def test_a_large_batch_stays_below_the_servers_limit():
    class Wide(Mean):
        columns = tuple(map(str, range(3_000)))

    rows_ND = np.full((300, 3_000), 1.2345678e-12, np.float32)
    with BackgroundServer(ServedModel(Wide(), "m"), ServerConfig(port=0)) as server:
        predictions = predict(server.url, rows_ND, content_type=CSV, batch_rows=300)

    np.testing.assert_array_equal(predictions.score_N, Mean().scores(rows_ND))
