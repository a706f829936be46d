"""The champion scores the challenger's orders by its own recipe."""

from __future__ import annotations

import numpy as np
import pytest

from market_cases import random_walk
from split_cases import make_split
from trademl.errors import DataError
from trademl.etl.features import feature_matrix
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.ingest.batch import Batch
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.train.duel import champion_flags
from trademl.train.model import LinearModel

OTHER = FeatureRecipe(quote_columns=(), lags=(Lags(30, 1),))


@pytest.fixture
def batch():
    quotes = random_walk(3000, seed=3)
    bot = OrderBotConfig(interval_s=10, barrier_unit="price", take_profit=1.0, stop_loss=1.0)
    orders = place_orders(quotes, bot)
    return Batch(quotes, orders, settle(quotes, orders, Costs()), np.arange(len(orders)) + 500)


@pytest.fixture
def champion():
    one = np.ones(30)
    return LinearModel(
        weights_D=np.linspace(-1, 1, 30), bias=0.0, mean_D=0 * one, scale_D=one, threshold=0.5,
        columns=tuple(f"x{k}" for k in range(30)),
    )  # fmt: skip


def test_it_reads_the_challengers_prices_by_its_own_recipe(batch, champion):
    chosen = np.arange(20, 60)
    test = make_split(np.zeros((40, 2)), np.zeros(40))  # two columns: another recipe
    test.order_id_N[:] = 500 + chosen
    index = batch.orders.quote_index[chosen]

    flagged, scored = champion_flags(champion, OTHER, test, batch)

    assert scored.all()
    expected = champion.predict(feature_matrix(batch.quotes, index, OTHER))[1] == 1
    np.testing.assert_array_equal(flagged, expected)
    assert 0 < flagged.sum() < 40


def test_an_order_without_its_history_is_not_compared(batch, champion):
    test = make_split(np.zeros((40, 2)), np.zeros(40))
    test.order_id_N[:] = 500 + np.arange(40)

    flagged, scored = champion_flags(champion, OTHER, test, batch)

    at_s = (batch.quotes.ts_event[batch.orders.quote_index[:40]] - batch.quotes.ts_event[0]) / 1e9
    np.testing.assert_array_equal(scored, at_s >= 30)
    assert not flagged[~scored].any()


def test_orders_of_another_batch_are_refused(batch, champion):
    test = make_split(np.zeros((3, 2)), np.zeros(3))

    with pytest.raises(DataError, match="are not orders of its batch"):
        champion_flags(champion, OTHER, test, batch)
