"""What is answered, without any transport."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import orjson
import pytest

from trademl.errors import ConfigError
from trademl.serve.engine import Engine
from trademl.serve.messages import Request
from trademl.serve.served import ServedModel, served
from trademl.serve.settings import ServerConfig
from trademl.serve.strategies import ServedStrategy
from trademl.train.model import LinearModel


class Sum:
    columns = tuple(map(str, range(2)))
    schema_hash = "test"

    def predict(self, features_ND):
        score_N = self.scores(features_ND)
        return score_N, (score_N >= np.float32(3.0)).astype(np.float32)

    def scores(self, features_ND):
        with np.errstate(over="ignore"):
            return features_ND.sum(axis=1)


class Broken(Sum):
    def scores(self, features_ND):
        if features_ND.any():  # the warm-up's zeros are no request
            raise RuntimeError("secret detail")
        return super().scores(features_ND)


def answer_of(model, request, config=None):
    async def ask():
        engine = Engine([ServedStrategy("default", (model,))], config or ServerConfig())
        try:
            handler = await engine.start()
            request.arrived_s = engine.turns.now()
            return handler(request)
        finally:
            engine.close()

    return asyncio.run(ask())


def invoke(model, body=b"1,2\n1,1\n", **headers):
    sent = {b"content-type": b"text/csv"}
    sent |= {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return answer_of(model, Request("POST", "/invocations", body, sent))


def test_a_score_at_the_threshold_is_positive():
    answer = invoke(ServedModel(Sum(), "m"))

    labels = [row["predicted_label"] for row in orjson.loads(answer.body)["predictions"]]
    assert labels == [1.0, 0.0]


def test_a_refused_model_says_so_in_the_body():
    model = ServedModel(Sum(), "m", "shadow", "refused", ("recall is 0.02",))

    assert orjson.loads(invoke(model).body)["model"] == {
        "id": "m",
        "status": "refused",
        "mode": "shadow",
        "reasons": ["recall is 0.02"],
    }


def test_a_failing_model_is_one_line_for_the_client_and_a_traceback_in_the_log(caplog):
    with caplog.at_level(logging.ERROR):
        answer = invoke(ServedModel(Broken(), "m"))

    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "secret detail" in caplog.text
    assert "Traceback" in caplog.text


def test_a_score_that_is_no_number_is_refused_by_row():
    answer = invoke(ServedModel(Sum(), "m"), b"1,2\n3e38,3e38\n")

    assert answer.status == 400
    assert b"row 2 has no finite score" in answer.body


def test_a_compressed_body_is_refused():
    answer = invoke(ServedModel(Sum(), "m"), content_encoding=b"gzip")

    assert answer.status == 415
    assert b"content encoding is 'gzip'" in answer.body


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 404, ""),
        ("GET", "/ping/", 404, ""),
        ("POST", "/ping", 405, "GET"),
        ("GET", "/invocations", 405, "POST"),
        ("DELETE", "/execution-parameters", 405, "GET"),
    ],
)
def test_unknown_paths_and_methods_are_named(method, path, status, allow):
    answer = answer_of(ServedModel(Sum(), "m"), Request(method, path))

    assert (answer.status, answer.allow) == (status, allow)
    assert path in orjson.loads(answer.body)["error"]


def test_execution_parameters_follow_the_body_limit():
    config = ServerConfig(max_body_bytes=25 * 2**20)

    answer = answer_of(ServedModel(Sum(), "m"), Request("GET", "/execution-parameters"), config)

    parameters = orjson.loads(answer.body)
    assert parameters["MaxPayloadInMB"] == 25
    assert parameters["MaxPayloadInMB"] * parameters["MaxConcurrentTransforms"] <= 100


def test_an_accepted_model_has_no_reasons_in_its_headers():
    assert ServedModel(Sum(), "m-1").head == (
        b"X-Trademl-Model: m-1\r\nX-Trademl-Mode: live\r\nX-Trademl-Status: accepted\r\n"
    )


def test_reasons_cannot_break_the_headers():
    reasons = ("recall ≥ 0.25\r\nSet-Cookie: a=b", "x" * 5000)

    headers = ServedModel(Sum(), "m\r\n", "shadow", "refused", reasons).head

    lines = headers.decode("ascii").split("\r\n")
    assert len(lines) == 5
    assert lines[-2].startswith("X-Trademl-Reasons: recall ? 0.25  Set-Cookie: a=b; xxx")
    assert len(lines[-2]) <= len("X-Trademl-Reasons: ") + 1024


@pytest.mark.parametrize(("status", "mode"), [("accepted", "live"), ("refused", "shadow")])
def test_only_an_accepted_linear_model_is_live_by_itself(status, mode):
    linear = LinearModel(
        np.array([1.0, 2.0]), 0.0, np.zeros(2), np.ones(2), 0.5, ("a", "b"), status=status
    )

    model = served(linear, "m")

    assert (model.mode, model.status, model.feature_dim) == (mode, status, 2)
    features_ND = np.array([[1.0, -1.0]], np.float32)
    assert model.scores(features_ND).score_N == linear.scores(features_ND)


@pytest.mark.parametrize(
    "setting",
    [
        {"port": 70_000},
        {"max_body_bytes": 26 * 2**20},
        {"max_body_bytes": 0},
        {"drain_s": -1.0},
        {"read_timeout_s": 0.0},
    ],
)
def test_impossible_settings_are_refused_by_name(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        ServerConfig(**setting)


@pytest.mark.parametrize("link", ["logistic", "identity"])
def test_a_row_alone_gets_the_score_of_its_model_bit_for_bit(link):
    rng = np.random.default_rng(3)
    weights_D, mean_D, scale_D = rng.normal(0, 0.1, (3, 605))
    columns = tuple(map(str, range(605)))
    model = LinearModel(weights_D, 0.1, mean_D, np.abs(scale_D) + 1, 0.5, columns, link)
    rows_ND = rng.normal(0, 10, (200, 605)).astype(np.float32)
    fast = served(model, "m")

    scores = [fast.scores(row_ND) for row_ND in np.split(rows_ND, 200)]

    np.testing.assert_array_equal(
        np.concatenate([s.score_N for s in scores]), model.scores(rows_ND)
    )
    labels = np.concatenate([s.label_N for s in scores])
    np.testing.assert_array_equal(labels, model.flags(model.scores(rows_ND)))
