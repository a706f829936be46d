"""A dataset of orders on OHLC bars: settled on the bars, the doubtful counted, proven."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from trademl.backtest.jobs import signals_on
from trademl.errors import DataError
from trademl.etl.adopt import open_dataset
from trademl.etl.from_files import build_features_from_files
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.etl.splits import SplitConfig
from trademl.etl.summary import inspect_dataset
from trademl.etl.verify import verify_dataset
from trademl.ingest.batch import read_batch
from trademl.ledger import Ledger
from trademl.market.costs import Costs
from trademl.store.artifacts import ArtifactStore

N, MINUTE_NS, START_NS = 3000, 60_000_000_000, 1_700_000_040_000_000_000
RECIPE = FeatureRecipe(lags=(Lags(10, 60),), spread=True, max_gap_s=60)
BARRIER = 1.0
SPREAD = 0.25


@pytest.fixture(scope="module")
def bars():
    """Return bid open, high, low and close of each minute."""
    rng = np.random.default_rng(5)
    close = 1000 + 0.25 * np.cumsum(rng.integers(-3, 4, N))
    open_ = np.concatenate(([1000.0], close[:-1]))
    above, below = 0.25 * rng.integers(0, 6, (2, N))
    return open_, np.maximum(open_, close) + above, np.minimum(open_, close) - below, close


@pytest.fixture(scope="module")
def files(bars, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars")
    time = pa.array(START_NS + MINUTE_NS * np.arange(N)).cast(pa.timestamp("ns", "UTC"))
    sides = {
        f"{side}_{name}": price + more
        for side, more in (("bid", 0), ("ask", SPREAD))
        for name, price in zip(("open", "high", "low", "close"), bars, strict=True)
    }
    pq.write_table(pa.table({"time": time, **sides}), folder / "bars.parquet")
    decided = np.arange(20, N - 100, 2)
    orders = {
        "opened_at": START_NS + MINUTE_NS * (decided + 1),
        "side": pa.array(["buy"] * len(decided)),
        "take_profit": np.full(len(decided), BARRIER),
        "stop_loss": np.full(len(decided), BARRIER),
    }
    csv.write_csv(pa.table(orders), folder / "orders.csv")
    return folder / "bars.parquet", folder / "orders.csv"


def build(files, out, **more):
    split = SplitConfig(embargo=0.0)
    return build_features_from_files(*files, out, RECIPE, split, Costs(), **more)


@pytest.fixture(scope="module")
def dataset(files, tmp_path_factory):
    return build(files, tmp_path_factory.mktemp("out") / "dataset", time_limit_s=36_000.0)


def walked(bars, decided):
    """Return the first bar on which a buy leaves, whether it won, and whether the bar held both."""
    open_, high, low, _ = bars
    entry = open_[decided + 1] + SPREAD
    for k in range(decided + 1, N):
        wins, loses = high[k] >= entry + BARRIER, low[k] <= entry - BARRIER
        if k > decided + 1 and (open_[k] >= entry + BARRIER or open_[k] <= entry - BARRIER):
            return k, open_[k] >= entry + BARRIER, False
        if wins or loses:
            return k, wins and not loses, wins and loses
    raise AssertionError("unresolved")


def test_every_order_leaves_where_a_walk_over_the_bars_says(dataset, bars):
    table = pq.read_table(dataset.file("labels.parquet")).to_pandas()
    assert len(table) == dataset.metrics["n_orders"] > 1000
    decided = ((table.as_of_ns - START_NS) // MINUTE_NS - 1).to_numpy()
    for row, order in enumerate(decided.tolist()):
        k, won, both = walked(bars, order)
        assert table.exit_ns[row] == START_NS + MINUTE_NS * (k + 1)
        assert table.label[row] == won
        assert table.is_ambiguous[row] == both


def test_the_doubtful_share_is_a_fact_of_the_dataset(dataset, bars):
    table = pq.read_table(dataset.file("labels.parquet")).to_pandas()
    facts = inspect_dataset(dataset)["labels"]["bars"]
    ended = table[table.exit_reason != "censored"]
    assert facts["n_doubtful"] == ended.is_ambiguous.sum() > 10
    assert facts["doubtful_share"] == pytest.approx(ended.is_ambiguous.mean())


def test_a_dataset_of_quotes_says_nothing_of_bars(dataset, tmp_path):
    from original_cases import original_deals, original_ticks, write_rows

    ticks = original_ticks(9000, spread=2.0, step=2.0)
    quotes = (
        write_rows(tmp_path / "price-1.csv", ticks),
        write_rows(tmp_path / "deals-1.csv", original_deals(ticks)),
    )
    other = build(quotes, tmp_path / "out", time_limit_s=60.0)
    assert "bars" not in other.metrics["labels"]
    assert "is_ambiguous" not in pq.read_schema(other.file("labels.parquet")).names


def test_every_row_is_proven_in_a_workspace_and_no_backtest_pretends(dataset, tmp_path):
    store, ledger = ArtifactStore(tmp_path / "a"), Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    adopted = open_dataset(str(dataset.path), store, ledger)
    proof = verify_dataset(adopted, store, ledger, sample=None)
    assert proof.metrics["is_proven"], proof.metrics["faults"]
    batch = read_batch(store.get(adopted.manifest["parents"][0]))
    assert batch.bars is not None
    with pytest.raises(DataError, match="live on bars"):
        signals_on(batch, batch.order_id, np.ones(len(batch)), Costs())
    ledger.close()


def test_nobody_recorded_labels_on_bars(files, tmp_path):
    with pytest.raises(DataError, match="holds bars: nobody recorded what orders earned"):
        build(files, tmp_path / "out", labels="recorded")


def test_lags_of_seconds_are_too_fine_for_minutes(files, tmp_path):
    with pytest.raises(DataError, match="too sparse for one-second lags: a quote comes every 60 s"):
        build_features_from_files(*files, tmp_path / "out", FeatureRecipe(), SplitConfig(), Costs())
