"""A dataset is the same, byte for byte, in whatever pieces its batch is read."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest

import trademl.etl.build as build
import trademl.etl.chunks as chunks
import trademl.etl.examined as examined
import trademl.ingest.batch as ingest_batch
import trademl.ingest.csv_columns as csv_columns
from market_cases import make_quotes, random_walk
from trademl.errors import DataError
from trademl.etl.dataset import SPLITS
from trademl.etl.features import feature_matrix
from trademl.etl.labels import Labelling
from trademl.etl.recipe import FeatureRecipe, Indicator, Lags
from trademl.etl.recordio import read_recordio
from trademl.etl.splits import SplitConfig
from trademl.ingest.batch import Batch, open_batch_files, read_batch_files, write_batch
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.health import HealthConfig
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.ports import Silent

N_QUOTES = 6000
COSTS = Costs(fee_per_unit=0.05)
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
    done = settle(quotes, orders, COSTS)
    return Batch(quotes, orders, done, 1000 + np.arange(n_orders))


@pytest.fixture(scope="module")
def batch():
    return make_batch(random_walk(N_QUOTES, seed=11, per_s=3), 1500)


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def built(folder, batch, recipe):
    folder.mkdir()
    facts = build.write_dataset(
        folder, batch, recipe, SplitConfig(), Labelling(costs=COSTS), HealthConfig(), Silent()
    )
    return facts, digests(folder)


def read_in_pieces(monkeypatch, n_quotes):
    whole = build.spool_quotes
    monkeypatch.setattr(build, "spool_quotes", lambda *a: whole(*a, quotes_per_group=n_quotes))
    monkeypatch.setattr(chunks, "ROWS_AT_ONCE", 40)
    monkeypatch.setattr(ingest_batch, "ORDERS_AT_ONCE", 7 * n_quotes)


@pytest.mark.parametrize("recipe", [PLAIN, RICH, BARS], ids=["plain", "rich", "bars"])
@pytest.mark.parametrize("n_quotes", [7, 300])
def test_chunks_give_the_files_of_one_piece(batch, tmp_path, monkeypatch, recipe, n_quotes):
    if recipe.indicators:
        pytest.importorskip("talib", reason="TA-Lib is not installed")
    whole = built(tmp_path / "whole", batch, recipe)
    read_in_pieces(monkeypatch, n_quotes)
    assert built(tmp_path / "pieces", batch, recipe) == whole
    assert 0 < whole[0]["dropped"]["no_full_history"] < 1000


def test_cells_are_those_of_the_whole_recording(batch, tmp_path, monkeypatch):
    read_in_pieces(monkeypatch, 100)
    built(tmp_path / "pieces", batch, RICH)
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


def test_rows_of_many_groups_are_found(batch, tmp_path, monkeypatch):
    whole = built(tmp_path / "whole", batch, PLAIN)[1]
    for module in (build, chunks):
        monkeypatch.setattr(module, "ROWS_PER_GROUP", 64)
    monkeypatch.setattr(build, "ORDERS_PER_GROUP", 50)
    read_in_pieces(monkeypatch, 300)
    pieces = built(tmp_path / "pieces", batch, PLAIN)[1]
    for name in ("rows.parquet", "labels.parquet"):
        assert pq.read_metadata(tmp_path / "pieces" / name).num_row_groups > 10
        assert pq.read_table(tmp_path / "pieces" / name) == pq.read_table(tmp_path / "whole" / name)
    for name in SPLITS:
        assert pieces[f"{name}.recordio"] == whole[f"{name}.recordio"]


def test_nothing_but_the_dataset_is_left(batch, tmp_path):
    _, files = built(tmp_path / "whole", batch, PLAIN)
    assert sorted(files) == sorted(
        [*(f"{n}.recordio" for n in SPLITS), "labels.parquet", "rows.parquet", "schema.json"]
    )


def test_a_sparse_recording_is_refused_with_its_step(tmp_path):
    quotes = make_quotes([1000.0] * 600, seconds=np.arange(600) * 60)
    sparse = make_batch(quotes, 100)
    with pytest.raises(DataError, match="a quote comes every 60 s"):
        built(tmp_path / "out", sparse, PLAIN)


@pytest.mark.parametrize("n_bytes", [1000, 30_000])
def test_a_file_read_in_pieces_gives_the_files_of_a_batch_in_memory(
    batch, tmp_path, monkeypatch, n_bytes
):
    resolved = batch.transactions.exit_index >= 0
    assert resolved.all()
    write_batch(tmp_path, batch, instrument="X", first_seq=40)
    paths = tmp_path / "prices.csv", tmp_path / "transactions.csv"
    whole = built(tmp_path / "whole", read_batch_files(*paths), RICH)
    monkeypatch.setattr(csv_columns, "BLOCK_BYTES", n_bytes)
    stream = open_batch_files(*paths)
    assert sum(1 for _ in stream.blocks()) > 4
    assert built(tmp_path / "pieces", stream, RICH) == whole


def test_groups_of_labels_are_those_that_a_table_is_written_in_by_default(batch, tmp_path):
    built(tmp_path / "whole", batch, PLAIN)
    path = tmp_path / "whole" / "labels.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "again", compression="zstd")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()
    assert build.ORDERS_PER_GROUP == 1024 * 1024  # pyarrow's own


def test_memory_does_not_hold_what_orders_cost(batch, tmp_path, monkeypatch):
    held, spooled = [], examined.ColumnSpool.append

    def append(spool, columns):
        held.append(len(columns["pnl"]))
        spooled(spool, columns)

    monkeypatch.setattr(examined.ColumnSpool, "append", append)
    read_in_pieces(monkeypatch, 20)
    built(tmp_path / "pieces", batch, PLAIN)
    assert max(held) == 140
    assert sum(held) == len(batch)
