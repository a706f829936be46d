"""Orders that touch a bad stretch: flagged or dropped, and counted by reason."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pyarrow.parquet as pq
import pytest

from market_cases import random_walk
from original_cases import original_deals, original_ticks, write_rows
from trademl.etl.from_files import build_features_from_files
from trademl.etl.labels import Labelling, label_batch
from trademl.etl.order_health import health_facts, order_health
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.etl.splits import SplitConfig
from trademl.ingest.batch import Batch
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.health import HealthConfig
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S, QuoteFlag

RECIPE = FeatureRecipe(lags=(Lags(20),), max_gap_s=10)


def batch_of(quotes, at):
    n = len(at)
    orders = Orders(
        np.array(at), np.ones(n, np.int8), np.full(n, 500.0), np.full(n, 500.0),
        np.full(n, 10 * NS_PER_S),
    )  # fmt: skip
    return Batch(quotes, orders, settle(quotes, orders, Costs()), np.arange(n))


def evenly(n):
    quotes = random_walk(n, seed=1)
    quotes.ts_event[:] = quotes.ts_event[0] + np.arange(n) * NS_PER_S
    return quotes


def test_what_an_order_touches_is_told_apart_by_when_it_was_known():
    quotes = evenly(200)
    quotes.flags[100] = QuoteFlag.CROSSED
    at = [89, 90, 99, 101, 120, 121]  # time exits come 10 s after entry; lookback is 20 s
    batch = batch_of(quotes, at)
    labels = label_batch(batch, Labelling())
    health = order_health(batch, labels, 20 * NS_PER_S, HealthConfig())
    assert health.holding_N.tolist() == [0, 1, 1, 0, 0, 0]
    assert health.history_N.tolist() == [0, 0, 0, 1, 1, 0]
    facts = health_facts(health, labels.figures, HealthConfig())
    assert (facts["n_touched"], facts["n_in_history"], facts["n_in_holding"]) == (4, 2, 2)
    assert facts["by_reason"] == {
        "crossed": 4, "one_sided": 0, "closed": 0, "delayed": 0, "frozen": 0, "gap": 0,
    }  # fmt: skip
    touched = batch.transactions.pnl[1:5]
    assert facts["mean_pnl_touched"] == pytest.approx(touched.mean())
    assert facts["label_rate_untouched"] == float((batch.transactions.pnl[[0, 5]] > 0).mean())


def test_a_gap_right_before_decision_or_exit_is_of_history_or_of_holding():
    quotes = evenly(200)
    quotes.ts_event[100:] += 5 * NS_PER_S
    batch = batch_of(quotes, [95, 99, 100])  # the first leaves at 100, right after the silence
    labels = label_batch(batch, Labelling())
    assert batch.transactions.exit_index.tolist() == [100, 104, 110]
    health = order_health(batch, labels, 20 * NS_PER_S, HealthConfig(gap_s=3))
    assert health.history_N.tolist() == [0, 0, QuoteFlag.GAP]
    assert health.holding_N.tolist() == [QuoteFlag.GAP, QuoteFlag.GAP, 0]


def test_nothing_bad_touches_nobody():
    batch = batch_of(evenly(100), [30, 40])
    labels = label_batch(batch, Labelling())
    facts = health_facts(
        order_health(batch, labels, NS_PER_S, HealthConfig()), labels.figures, HealthConfig()
    )
    assert facts["n_touched"] == 0
    assert facts["label_rate_touched"] is None


@pytest.fixture(scope="module")
def broken_ticks():
    """Return ticks with a closed stretch, a delayed one, and a silence."""
    ticks = original_ticks(2500, spread=1.0, step=2.0)
    for tick in ticks[1000:1010]:
        tick["MARKET_STATE"] = "CLOSED"
    for tick in ticks[1500:1505]:
        tick["MARKET_DELAY"] = 1
    for tick in ticks[2000:]:
        tick["timestamp"] += 9_000
    return ticks


@pytest.fixture(scope="module")
def build(broken_ticks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    prices = write_rows(folder / "price-1.csv", broken_ticks)
    deals = write_rows(folder / "deals-1.csv", original_deals(broken_ticks))

    def run(**health):
        config = HealthConfig(gap_s=5, **health)
        name = "-".join(map(str, asdict(config).values()))
        return build_features_from_files(
            prices, deals, folder / name, RECIPE, SplitConfig(embargo=0.0), Costs(), health=config
        )

    return run


def test_flagged_orders_stay_and_carry_their_bits(build):
    dataset = build()
    rows = pq.read_table(dataset.file("rows.parquet")).to_pandas()
    either = rows.history_health | rows.holding_health
    facts = dataset.metrics["health"]
    assert dataset.metrics["dropped"]["unhealthy"] == 0
    for flag in (QuoteFlag.CLOSED, QuoteFlag.DELAYED, QuoteFlag.GAP):
        assert 20 < ((either & int(flag)) != 0).sum() <= facts["by_reason"][flag.name.lower()]
    assert facts["by_reason"]["crossed"] == 0


def test_dropped_orders_are_counted_and_gone(build):
    flagged, dropped = build(), build(policy="drop")
    rows = pq.read_table(dropped.file("rows.parquet")).to_pandas()
    assert (rows.history_health == 0).all()
    assert (rows.holding_health == 0).all()
    of_flagged = pq.read_table(flagged.file("rows.parquet")).to_pandas()
    fates = pq.read_table(dropped.file("labels.parquet"))["split"].to_pylist()
    n_dropped = dropped.metrics["dropped"]["unhealthy"]
    assert n_dropped == fates.count("unhealthy") > 60
    n_censored = flagged.metrics["dropped"]["censored"] - dropped.metrics["dropped"]["censored"]
    assert len(rows) + n_dropped - n_censored == len(of_flagged)


def test_no_order_is_decided_or_filled_in_a_closed_or_delayed_market(build, broken_ticks):
    dataset = build()
    table = pq.read_table(dataset.file("labels.parquet")).to_pandas()
    closed = {t["timestamp"] * 1_000_000 for t in broken_ticks[1000:1010] + broken_ticks[1500:1505]}
    in_closed = table.as_of_ns.isin(closed)
    assert dataset.metrics["dropped"]["no_executable_quote"] == in_closed.sum() == 15
    assert set(table[in_closed].split) == {"no_executable_quote"}
    assert not table.exit_ns.isin(closed).any()


def test_a_larger_limit_lets_delayed_quotes_fill(build):
    dataset = build(max_delay_s=5.0)
    assert dataset.metrics["dropped"]["no_executable_quote"] == 10
    assert dataset.metrics["health"]["by_reason"]["delayed"] == 0
