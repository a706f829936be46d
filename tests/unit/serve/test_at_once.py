"""The straight line gives what the general way gives, or leaves the request to it."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trademl.etl.recordio import encode_records
from trademl.serve import number_text, row_sum
from trademl.serve.at_once import AtOnce
from trademl.serve.formats import CSV, JSON, RECORDIO, parse_request
from trademl.serve.messages import Request
from trademl.serve.model_pool import Held, ModelFile
from trademl.serve.provenance import Provenance, decision
from trademl.serve.served import served
from trademl.serve.wants import NOTHING
from trademl.train.model import LinearModel

D = 20
FOUND = Provenance("smallest", "load", 0.0, 0.0015)
AS_FOUND = ("smallest", "load", 0.0015)
KINDS = (JSON, CSV, RECORDIO)


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    """Compile before the first example, which hypothesis would find too slow."""
    number_text.warm_up()
    row_sum.warm_up()


def linear(status="accepted", link="logistic"):
    rng = np.random.default_rng(3)
    weights_D, mean_D, scale_D = rng.normal(0, 0.1, D), rng.normal(0, 1, D), rng.uniform(1, 2, D)
    columns = tuple(f"x{d}" for d in range(D))
    model = LinearModel(
        weights_D, 0.1, mean_D, scale_D, 0.5, columns, link=link, status=status, reasons=()
    )
    return served(model, "m-1")


def body_of(kind, rows_ND):
    if kind == RECORDIO:
        return encode_records(rows_ND)
    texts = [",".join(f"{x:.9g}" for x in row_D) for row_D in rows_ND]
    if kind == CSV:
        return "\n".join(texts).encode()
    instances = ",".join('{"features":[' + text + "]}" for text in texts)
    return ('{"instances":[' + instances + "]}").encode()


def request(kind, rows_ND, **headers):
    asked = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    asked = {b"content-type": kind.encode(), b"x-request-id": b"r-1"} | asked
    return Request("POST", "/invocations", body_of(kind, rows_ND), asked)


def row(seed=5):
    return np.random.default_rng(seed).normal(0, 50, (1, D)).astype(np.float32)


def at_once(asked, model, usual=None):
    return (usual or AtOnce()).answer(asked, Held(ModelFile("m-1", ""), model), *AS_FOUND)


features = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float32, (1, D), elements=features), st.sampled_from(KINDS))
def test_a_usual_request_gets_the_answer_of_the_general_way(row_1D, kind):
    asked, model = request(kind, row_1D), linear()

    found = at_once(asked, model)

    scores = model.scores(parse_request(kind, asked.body, D))
    general = decision(asked, NOTHING, model, scores, FOUND)
    assert found in (general, None)  # none where a last bit is in doubt


@pytest.mark.parametrize("kind", KINDS)
def test_a_usual_request_is_answered_at_once(kind):
    asked = request(kind, row(), accept=b"application/json")

    assert at_once(asked, linear()) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_no_later_rows(kind):
    usual, model = AtOnce(), linear()

    bodies = [at_once(request(kind, row(seed)), model, usual).body for seed in (5, 6)]

    scores = [orjson.loads(body)["predictions"][0]["score"] for body in bodies]
    expected = [model.scores(row(seed)).score_N[0] for seed in (5, 6)]
    np.testing.assert_array_equal(np.float32(scores), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "rows_ND",
    [
        np.zeros((2, D)),  # two rows
        np.zeros((1, D - 1)),  # too few features
        np.zeros((1, D + 1)),
        np.where(np.arange(D) == 7, np.nan, 0.0)[None],
        np.where(np.arange(D) == 7, -np.inf, 0.0)[None],
    ],
)
def test_what_is_no_plain_row_goes_the_general_way(kind, rows_ND):
    asked = request(kind, rows_ND.astype(np.float32))

    assert at_once(asked, linear()) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"accept": b"application/jsonlines"},
        {"content_encoding": b"gzip"},
        {"content_type": b"text/csv; label_size=0"},
        {"content_type": b""},
    ],
)
def test_what_needs_a_closer_look_goes_the_general_way(headers):
    assert at_once(request(JSON, row(), **headers), linear()) is None


def test_a_record_with_a_label_goes_the_general_way():
    asked = request(RECORDIO, row())
    asked.body = encode_records(row(), np.float32([1.0]))

    assert at_once(asked, linear()) is None


def test_a_refused_model_has_more_to_say():
    assert at_once(request(JSON, row()), linear("refused")) is None
