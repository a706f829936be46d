"""Orders on a recording's own bars: indicators of those bars, the dataset, and its proof."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from market_cases import random_walk
from trademl.errors import ConfigError
from trademl.etl.build import build_features
from trademl.etl.dataset import load_split
from trademl.etl.features import feature_matrix, usable_rows
from trademl.etl.labels import Labelling
from trademl.etl.live_features import LiveFeatures
from trademl.etl.recipe import FeatureRecipe, Indicator, Lags
from trademl.etl.splits import SplitConfig
from trademl.etl.verify import examine_dataset, verify_dataset
from trademl.ingest.bar_batches import BarsConfig, export_on_bars
from trademl.ingest.bar_files import closes
from trademl.ingest.batch import read_batch
from trademl.ingest.order_bot import OrderBotConfig
from trademl.ingest.sources import FeedConfig
from trademl.ledger import Ledger
from trademl.market.bars import Bars, settle_on_bars
from trademl.market.costs import Costs
from trademl.store.artifacts import ArtifactStore

S = 1_000_000_000
MINUTE_NS, START_NS = 60 * S, 1_700_000_040 * S
N, SPREAD = 1200, 0.25
RECIPE = FeatureRecipe(
    quote_columns=(),
    lags=(Lags(5, 60),),
    indicators=(
        Indicator("WILLR", 60, {"timeperiod": 6}, of="recording"),
        Indicator("RSI", 60, {"timeperiod": 3}, of="recording"),
        Indicator("SMA", 60, {"timeperiod": 4}, of="recording"),
        Indicator("SMA", 120, {"timeperiod": 2}),
    ),
    max_gap_s=60,
)


def make_bars(n: int = N, seed: int = 0) -> Bars:
    rng = np.random.default_rng(seed)
    close = 1000 + 0.25 * np.cumsum(rng.integers(-3, 4, n))
    open_ = np.concatenate(([1000.0], close[:-1]))
    above, below = 0.25 * rng.integers(0, 6, (2, n))
    ts = START_NS + MINUTE_NS * np.arange(n)
    high, low = np.maximum(open_, close) + above, np.minimum(open_, close) - below
    return Bars(ts, ts + MINUTE_NS, open_, high, low, close, np.full(n, SPREAD))


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Return the batch of a file of bars, with its store and ledger."""
    folder, bars = tmp_path_factory.mktemp("bars"), make_bars()
    mids = {n: getattr(bars, n) + SPREAD / 2 for n in ("open", "high", "low", "close")}
    time = pa.array(bars.ts_open).cast(pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"time": time, **mids}), folder / "bars.parquet")
    store, ledger = ArtifactStore(folder / "artifacts"), Ledger(f"sqlite:///{folder / 'ledger.db'}")
    bot = OrderBotConfig(interval_s=60, time_limit_s=900, volatility_window_s=600, lookback_s=7200)
    feed = FeedConfig(quotes=str(folder / "bars.parquet"))
    (found,) = export_on_bars(
        feed, BarsConfig("file", spread=SPREAD), bot, Costs(fee_per_unit=0.05), store, ledger
    )
    yield found, store, ledger
    ledger.close()


@pytest.fixture(scope="module")
def dataset(batch):
    found, store, ledger = batch
    return build_features(found, RECIPE, SplitConfig(), store, ledger)


def test_an_indicator_is_that_of_the_bars_that_ended_by_then():
    quotes, rows = closes(bars := make_bars()), np.arange(100, 140)
    names = [column["name"] for column in RECIPE.columns()]
    found_ND = feature_matrix(quotes, rows, RECIPE)
    for n, k in enumerate(rows):
        six = slice(k - 5, k + 1)  # the bar that ends at the decision is the last of six
        top, bottom = bars.high[six].max(), bars.low[six].min()
        williams = -100 * (top - bars.close[k]) / (top - bottom)
        assert found_ND[n, names.index("willr_6_bars")] == pytest.approx(williams, rel=1e-5)
        mean = bars.close[k - 3 : k + 1].mean() - bars.close[k]
        assert found_ND[n, names.index("sma_4_bars")] == pytest.approx(mean, abs=1e-5)


def test_steps_stand_after_them_and_before_those_of_the_clock():
    lags = [f"mid_lag_{k}s_of_60s" for k in (300, 240, 180, 120, 60)]
    own = ["willr_6_bars", "rsi_3_bars", "sma_4_bars"]
    assert [column["name"] for column in RECIPE.columns()] == [*own, *lags, "sma_2_120s"]


def test_later_bars_move_no_feature():
    bars, rows = make_bars(), np.arange(100, 200)
    later = np.arange(N) > 199
    changed = (np.where(later, p + 50, p) for p in (bars.open, bars.high, bars.low, bars.close))
    tampered = closes(Bars(bars.ts_open, bars.ts_close, *changed, bars.spread))
    np.testing.assert_array_equal(
        feature_matrix(tampered, rows, RECIPE), feature_matrix(closes(bars), rows, RECIPE)
    )


def test_no_window_reaches_over_a_sessions_end():
    bars = make_bars(200)
    gap = np.where(np.arange(200) < 100, 0, 60 * MINUTE_NS)
    bars = replace(bars, ts_open=bars.ts_open + gap, ts_close=bars.ts_close + gap)
    recipe = replace(RECIPE, lags=(), indicators=RECIPE.indicators[:1])
    usable = usable_rows(closes(bars), np.arange(50, 150), recipe)
    assert np.flatnonzero(~usable).tolist() == list(range(50, 56))  # six bars and the one before


def test_a_recording_of_quotes_has_no_bars_of_its_own():
    with pytest.raises(ConfigError, match="WILLR is of the recording's own bars"):
        feature_matrix(random_walk(5000), np.array([4000]), RECIPE)


def test_a_feed_has_no_bars_of_its_own():
    with pytest.raises(ConfigError, match="WILLR, RSI, SMA are of a recording's own bars"):
        LiveFeatures(RECIPE)


def test_labels_are_what_the_bars_would_have_paid(batch, dataset):
    found, _, _ = batch
    read = read_batch(found)
    test = load_split(dataset, "test")
    assert read.bars is not None
    row_N = np.searchsorted(read.order_id, test.order_id_N)
    again = settle_on_bars(read.bars, read.orders.take(row_N), Costs(fee_per_unit=0.05))
    np.testing.assert_array_equal(test.pnl_N, again.transactions.pnl)


def test_the_dataset_is_proven(batch, dataset):
    _, store, ledger = batch
    proof = verify_dataset(dataset, store, ledger)
    assert proof.metrics["is_proven"], proof.metrics["faults"]
    assert dataset.metrics["labels"]["bars"]["n_doubtful"] > 0


def test_the_proof_finds_rows_that_read_the_next_bar(batch, dataset):
    found, _, _ = batch
    read = read_batch(found)
    test = load_split(dataset, "test")
    shifted = feature_matrix(
        read.quotes,
        read.orders.quote_index[np.searchsorted(read.order_id, test.order_id_N)] + 1,
        RECIPE,
    )
    leaky = {"test": replace(test, features_ND=shifted)}
    how = Labelling("recomputed", Costs(fee_per_unit=0.05))
    assert examine_dataset(leaky, read, RECIPE, how, sample=20).n_wrong_cells > 20


def test_the_same_bars_are_exported_once(batch):
    found, store, _ = batch
    how = found.manifest["parameters"]
    assert store.all_of("batch")[0].id == found.id
    assert how["orders"]["interval_s"] == 60
    assert len(store.all_of("batch")) == 1
