"""What is answered, without any transport."""

from __future__ import annotations

import logging

import numpy as np
import orjson
import pytest

from trademl.errors import ConfigError
from trademl.serve.handler import Handler, Request, standing_headers
from trademl.serve.served import ServedModel, served_linear
from trademl.serve.settings import ServerConfig
from trademl.train.model import LinearModel


class Sum:
    feature_dim = 2
    threshold = 3.0

    def scores(self, features_ND):
        with np.errstate(over="ignore"):
            return features_ND.sum(axis=1)


class Broken(Sum):
    def scores(self, features_ND):
        raise RuntimeError("secret detail")


def invoke(model, body=b"1,2\n1,1\n", **changes):
    handler = Handler(model, ServerConfig())
    return handler(Request("POST", "/invocations", body, "text/csv", **changes))


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
    answer = invoke(ServedModel(Sum(), "m"), content_encoding="gzip")

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
    answer = Handler(ServedModel(Sum(), "m"), ServerConfig())(Request(method, path))

    assert (answer.status, answer.allow) == (status, allow)
    assert path in orjson.loads(answer.body)["error"]


def test_execution_parameters_follow_the_body_limit():
    config = ServerConfig(max_body_bytes=25 * 2**20)

    answer = Handler(ServedModel(Sum(), "m"), config)(Request("GET", "/execution-parameters"))

    parameters = orjson.loads(answer.body)
    assert parameters["MaxPayloadInMB"] == 25
    assert parameters["MaxPayloadInMB"] * parameters["MaxConcurrentTransforms"] <= 100


def test_an_accepted_model_has_no_reasons_in_its_headers():
    assert standing_headers(ServedModel(Sum(), "m-1")) == (
        b"X-Trademl-Model: m-1\r\nX-Trademl-Mode: live\r\n"
        b"X-Trademl-Tier: biggest\r\nX-Trademl-Status: accepted\r\n"
    )


def test_reasons_cannot_break_the_headers():
    reasons = ("recall ≥ 0.25\r\nSet-Cookie: a=b", "x" * 5000)

    headers = standing_headers(ServedModel(Sum(), "m\r\n", "shadow", "refused", reasons))

    lines = headers.decode("ascii").split("\r\n")
    assert len(lines) == 6
    assert lines[-2].startswith("X-Trademl-Reasons: recall ? 0.25  Set-Cookie: a=b; xxx")
    assert len(lines[-2]) <= len("X-Trademl-Reasons: ") + 1024


@pytest.mark.parametrize(("status", "mode"), [("accepted", "live"), ("refused", "shadow")])
def test_only_an_accepted_linear_model_is_live_by_itself(status, mode):
    linear = LinearModel(
        np.array([1.0, 2.0]), 0.0, np.zeros(2), np.ones(2), 0.5, ("a", "b"), status=status
    )

    served = served_linear(linear, "m")

    assert (served.mode, served.status, served.model.feature_dim) == (mode, status, 2)
    features_ND = np.array([[1.0, -1.0]], np.float32)
    assert served.model.scores(features_ND) == linear.scores(features_ND)


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
