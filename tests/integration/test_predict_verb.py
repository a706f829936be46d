"""``trademl predict`` from the command line, against servers of several kinds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from serving_cases import Small, linear_model, score_of
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy, ServerConfig
from trademl.train.model import save_model


class Negative(Small):
    def predict(self, features_ND):
        score_N, _ = super().predict(features_ND)
        return np.stack([-score_N, score_N], axis=1), np.zeros(len(score_N))


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("1,1\n2,2\n")
    return path


def test_a_strategy_of_several_is_asked_by_its_endpoint(trademl, rows):
    both = [
        ServedStrategy("btc", (ServedModel(Small(), "m-btc"),)),
        ServedStrategy("alice", (ServedModel(Negative(), "m-alice"),)),
    ]
    with BackgroundServer(both) as server:
        asked = ("predict", rows, "--url", server.url, "--endpoint", "alice")
        found = json.loads(trademl(*asked, "--json").stdout)
        shown = trademl(*asked).stdout

    assert found["id"] == "m-alice"
    assert [p["score"] for p in found["predictions"]] == [[-2.0, 2.0], [-4.0, 4.0]]
    assert shown == "-2.000000  2.000000  0\n-4.000000  4.000000  0\n"


def test_a_model_of_a_server_of_many_is_asked_by_its_name(trademl, rows, tmp_path):
    import requests

    save_model(linear_model(2.0), tmp_path / "m.tar.gz")
    with BackgroundServer((), ServerConfig(port=0, model_folder=tmp_path)) as server:
        document = {"model_name": "two", "url": str(tmp_path / "m.tar.gz")}
        assert requests.post(f"{server.url}/models", json=document, timeout=10).ok
        done = trademl("predict", rows, "--url", server.url, "--model", "two", "--json")

    found = json.loads(done.stdout)
    assert found["id"] == "two"
    assert found["predictions"][0]["score"] == pytest.approx(score_of(2.0), abs=1e-7)
