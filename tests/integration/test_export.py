"""Batches exported from a tick store and read back."""

from __future__ import annotations

import numpy as np
import pytest

from market_cases import random_walk
from trademl.ingest.batch import read_batch
from trademl.ingest.order_bot import OrderBotConfig
from trademl.ingest.replay import export
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.pipeline.workspace import Workspace

QUOTES = random_walk(1_000, seed=2)
BOT = OrderBotConfig(
    interval_s=5, barrier_unit="price", time_limit_s=60, export_after=50, lookback_s=0
)


@pytest.mark.parametrize("latency_ms", [0, 5_000])
def test_batch_holds_the_quotes_that_its_orders_were_decided_on(tmp_path, latency_ms):
    costs = Costs(slippage=0.25, latency_ms=latency_ms)
    with Workspace(tmp_path) as ws:
        list(ws.ticks.append("recording", "TEST", "test", QUOTES))
        batches = [
            read_batch(artifact)
            for artifact in export("recording", ws.ticks, BOT, costs, ws.store, ws.ledger)
        ]

    assert len(batches) > 1
    for batch in batches:
        again = settle(batch.quotes, batch.orders, costs)
        assert batch.orders.quote_index[0] == 0
        np.testing.assert_array_equal(again.exit_index, batch.transactions.exit_index)
        np.testing.assert_allclose(again.pnl, batch.transactions.pnl, atol=1e-9)
