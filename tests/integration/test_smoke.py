"""What is asked after a deployment, of models of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from serving_cases import linear_model
from trademl.errors import ServeError
from trademl.serve.freshness import Freshness
from trademl.serve.server import BackgroundServer, ServedModel, ServedStrategy
from trademl.serve.smoke import smoke_test
from trademl.train.model import MulticlassModel


def classes(bias: float) -> MulticlassModel:
    bias_C = np.array([bias, 0.0, 0.5])
    return MulticlassModel(np.ones((3, 2)), bias_C, np.ones(2), np.ones(2), ("a", "b"))


def test_every_class_is_compared():
    with BackgroundServer(ServedModel(classes(1.0), "m")) as server:
        found = smoke_test(server.url, classes(1.0))
        with pytest.raises(ServeError, match=r"scores 0.506480, .* where the model scores 0.736"):
            smoke_test(server.url, classes(2.0))

    np.testing.assert_allclose(found, classes(1.0).scores(np.ones((1, 2)))[0], atol=1e-7)


def test_a_server_of_another_kind_of_model_is_told():
    with (
        BackgroundServer(ServedModel(classes(1.0), "m")) as server,
        pytest.raises(ServeError, match="where the model scores 0.500000: it serves another one"),
    ):
        smoke_test(server.url, linear_model(1.0))


def test_a_server_that_wants_the_features_time_is_told_that_it_is_now():
    model = linear_model(1.0)
    fresh = Freshness(max_feature_age_s=60.0, needs_feature_time=True)
    strategy = ServedStrategy("btc", (ServedModel(model, "m"),), freshness=fresh)
    with BackgroundServer(strategy) as server:
        assert smoke_test(server.url, model) == pytest.approx(0.5)
