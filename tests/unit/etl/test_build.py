"""A dataset is the same, byte for byte, in whatever pieces its batch is read."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest

import trademl.etl.batch_stream as batch_stream
import trademl.etl.build as build
import trademl.etl.chunks as chunks
from market_cases import make_quotes, random_walk
from trademl.errors import DataError
from trademl.etl.dataset import SPLITS
from trademl.etl.features import feature_matrix
from trademl.etl.recipe import FeatureRecipe, Indicator, Lags
from trademl.etl.recordio import read_recordio
from trademl.etl.splits import SplitConfig
from trademl.ingest.batch import Batch, write_batch
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.ports import Silent
from trademl.store.artifacts import Artifact, ArtifactStore

N_QUOTES, FIRST_SEQ = 6000, 500
PLAIN = FeatureRecipe(lags=(Lags(20), Lags(3, 5)), max_gap_s=2)
RICH = FeatureRecipe(
    lags=(Lags(20),),
    max_gap_s=2,
    volatility_s=(10,),
    spread=True,
    scaling="volatility",
    scaling_window_s=30,
)
BARS = FeatureRecipe(
    lags=(Lags(5),), max_gap_s=1, indicators=(Indicator("RSI", 3, {"timeperiod": 3}),)
)


def make_batch(quotes: Quotes, n_orders: int) -> Batch:
    at = np.sort(np.random.default_rng(3).integers(0, len(quotes) - 300, n_orders))
    orders = Orders(
        at,
        np.ones(n_orders, np.int8),
        np.full(n_orders, 1.0),
        np.full(n_orders, 1.0),
        np.full(n_orders, 30 * NS_PER_S),
    )
    done = settle(quotes, orders, Costs(fee_per_unit=0.05))
    return Batch(quotes, orders, done, 1000 + np.arange(n_orders))


@pytest.fixture(scope="module")
def batch():
    return make_batch(random_walk(N_QUOTES, seed=11, per_s=3), 1500)


@pytest.fixture(scope="module")
def published(batch, tmp_path_factory):
    return publish(tmp_path_factory.mktemp("store"), batch)


def publish(root, batch: Batch) -> Artifact:
    store = ArtifactStore(root)
    with store.create("batch-000000000001", parents=[], parameters={}) as draft:
        write_batch(draft.path, batch, instrument="X", first_seq=FIRST_SEQ)
    return store.get("batch-000000000001")


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def built(folder, batch, recipe):
    folder.mkdir()
    facts = build.write_dataset(folder, batch, recipe, SplitConfig(), Silent())
    return facts, digests(folder)


def read_in_pieces(monkeypatch, n_quotes):
    whole = build.spool_prices
    monkeypatch.setattr(build, "spool_prices", lambda *a: whole(*a, quotes_per_group=n_quotes))
    monkeypatch.setattr(chunks, "ROWS_AT_ONCE", 40)
    monkeypatch.setattr(batch_stream, "_READ_BYTES", 10_000)


@pytest.mark.parametrize("recipe", [PLAIN, RICH, BARS], ids=["plain", "rich", "bars"])
@pytest.mark.parametrize("n_quotes", [7, 300])
def test_chunks_give_the_files_of_one_piece(published, tmp_path, monkeypatch, recipe, n_quotes):
    if recipe.indicators:
        pytest.importorskip("talib", reason="TA-Lib is not installed")
    whole = built(tmp_path / "whole", published, recipe)
    read_in_pieces(monkeypatch, n_quotes)
    assert built(tmp_path / "pieces", published, recipe) == whole
    assert 0 < whole[0]["dropped"]["no_full_history"] < 1000


def test_cells_are_those_of_the_whole_recording(batch, published, tmp_path, monkeypatch):
    read_in_pieces(monkeypatch, 100)
    built(tmp_path / "pieces", published, RICH)
    rows = pq.read_table(tmp_path / "pieces" / "rows.parquet")
    for name in SPLITS:
        features_ND, label_N = read_recordio(tmp_path / "pieces" / f"{name}.recordio")
        mine = rows.filter(np.array(rows["split"]) == name)
        at = mine["order_id"].to_numpy() - 1000
        index_N = batch.orders.quote_index[at]
        np.testing.assert_array_equal(features_ND, feature_matrix(batch.quotes, index_N, RICH))
        np.testing.assert_array_equal(label_N, batch.transactions.label[at])
        exit_N = batch.quotes.ts_event[batch.transactions.exit_index[at]]
        np.testing.assert_array_equal(mine["exit_ns"].to_numpy(), exit_N)


def test_rows_of_many_groups_are_found(published, tmp_path, monkeypatch):
    whole = built(tmp_path / "whole", published, PLAIN)[1]
    for module in (build, chunks):
        monkeypatch.setattr(module, "ROWS_PER_GROUP", 64)
    read_in_pieces(monkeypatch, 300)
    pieces = built(tmp_path / "pieces", published, PLAIN)[1]
    assert pq.read_table(tmp_path / "pieces" / "rows.parquet") == pq.read_table(
        tmp_path / "whole" / "rows.parquet"
    )
    for name in SPLITS:
        assert pieces[f"{name}.recordio"] == whole[f"{name}.recordio"]


def test_nothing_but_the_dataset_is_left(published, tmp_path):
    _, files = built(tmp_path / "whole", published, PLAIN)
    assert sorted(files) == sorted(
        [*(f"{n}.recordio" for n in SPLITS), "rows.parquet", "schema.json"]
    )


def test_a_sparse_recording_is_refused_with_its_step(tmp_path):
    quotes = make_quotes([1000.0] * 600, seconds=np.arange(600) * 60)
    sparse = publish(tmp_path / "store", make_batch(quotes, 100))
    with pytest.raises(DataError, match="a quote comes every 60 s"):
        built(tmp_path / "out", sparse, PLAIN)


@pytest.mark.parametrize(
    ("name", "line", "change", "message"),
    [
        ("prices.csv", 3, lambda cells: ["9", *cells[1:]], "seq does not count one by one"),
        ("prices.csv", 3, lambda cells: [cells[0], "5", *cells[2:]], "ts_event runs backwards"),
        ("prices.csv", 3, lambda cells: [*cells[:3], "x", *cells[4:]], "cannot be read"),
        ("prices.csv", 0, lambda cells: ["number", *cells[1:]], "cannot be read .*seq"),
        ("transactions.csv", -1, lambda cells: [*cells[:14], "99999", *cells[15:]], "lies outside"),
        ("transactions.csv", 3, lambda cells: [*cells[:14], "6000", *cells[15:]], "not in the order"),
        ("transactions.csv", 3, lambda cells: ["", *cells[1:]], "an order has no id"),
    ],
)  # fmt: skip
def test_a_damaged_batch_is_named(batch, tmp_path, name, line, change, message):
    damaged = publish(tmp_path / "store", batch)
    path = damaged.file(name)
    lines = path.read_text().splitlines()
    lines[line] = ",".join(change(lines[line].split(",")))
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        built(tmp_path / "out", damaged, PLAIN)


@pytest.mark.parametrize(
    ("seconds", "median"), [([0, 0, 1, 3], 1.5), ([0, 5, 10, 11], 5.0), ([4, 4], float("inf"))]
)
def test_the_median_step_is_that_of_all_steps(tmp_path, seconds, median):
    for cut in range(1, len(seconds)):
        steps = batch_stream.Steps()
        ts_event = np.array(seconds) * NS_PER_S
        steps.add(ts_event[:cut], tmp_path)
        steps.add(ts_event[cut:], tmp_path)
        assert steps.median() == median
