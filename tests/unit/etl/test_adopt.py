"""Datasets of a folder: what works for those of a workspace works for them."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from market_cases import random_walk
from original_cases import original_deals, original_ticks, write_rows
from trademl.errors import DataError, StoreError
from trademl.etl.adopt import open_dataset
from trademl.etl.build import LocalEngine
from trademl.etl.dataset import SPLITS, load_split, map_split
from trademl.etl.from_files import build_features_from_files
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.etl.recordio import read_recordio, write_recordio
from trademl.etl.splits import SplitConfig
from trademl.etl.summary import inspect_dataset
from trademl.etl.verify import require_proof, verify_dataset
from trademl.ingest.batch import Batch, read_batch, write_batch
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.ledger import Ledger, tables
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.store.artifacts import ArtifactStore, get_artifact

RECIPE = FeatureRecipe(lags=(Lags(60),))
COSTS = Costs(fee_per_unit=0.05)
OTHER = Costs(fee_per_unit=0.1, latency_ms=2500)


@pytest.fixture
def workspace(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield ArtifactStore(tmp_path / "artifacts"), ledger
    ledger.close()


@pytest.fixture(scope="module")
def of_batch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    quotes = random_walk(4000, seed=3)
    bot = OrderBotConfig(interval_s=2, barrier_unit="price", time_limit_s=60)
    orders = place_orders(quotes, bot)
    done = settle(quotes, orders, COSTS)
    rows = np.flatnonzero(done.exit_index >= 0)
    batch = Batch(quotes, orders.take(rows), done.take(rows), rows)
    write_batch(folder, batch, instrument="TEST", first_seq=100)
    return folder / "prices.csv", folder / "transactions.csv"


@pytest.fixture(scope="module")
def of_original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    ticks = original_ticks(4000, spread=4.0, step=2.0)
    return (
        write_rows(folder / "price-1.csv", ticks),
        write_rows(folder / "deals-1.csv", original_deals(ticks)[:3000]),
    )


def build(files, out, **more):
    settings = {"labels": "recomputed", "time_limit_s": 60.0, **more}
    costs = settings.pop("costs", COSTS)
    split = SplitConfig(embargo=0.0)
    return build_features_from_files(*files, out, RECIPE, split, costs, **settings)


@pytest.mark.parametrize("kind", ["of_batch", "of_original"])
@pytest.mark.parametrize(
    ("labels", "costs"), [("recorded", COSTS), ("recomputed", COSTS), ("recomputed", OTHER)]
)
def test_rows_of_an_honest_dataset_are_proven(kind, labels, costs, request, workspace, tmp_path):
    built = build(request.getfixturevalue(kind), tmp_path / "out", labels=labels, costs=costs)
    dataset = open_dataset(str(built.path), *workspace)
    assert dataset.id == built.id
    proof = verify_dataset(dataset, *workspace, sample=300)
    assert proof.metrics["is_proven"], proof.metrics["faults"]
    assert proof.metrics["n_rows"] == 300
    require_proof(dataset.id, workspace[1])


def test_a_spoiled_cell_is_caught(of_batch, workspace, tmp_path):
    built = build(of_batch, tmp_path / "out")
    dataset = open_dataset(str(built.path), *workspace)
    path = dataset.file("test.recordio")
    features_ND, label_N = read_recordio(path)
    features_ND[3, 10] += 0.25
    write_recordio(path, features_ND, label_N)
    proof = verify_dataset(dataset, *workspace, sample=None)
    assert proof.metrics["n_wrong_cells"] == 1
    assert "test row 3, column mid_lag" in proof.metrics["faults"][0]


def test_the_ledger_leads_from_the_dataset_to_a_batch_of_its_files(
    of_original, workspace, tmp_path
):
    store, ledger = workspace
    dataset = open_dataset(str(build(of_original, tmp_path / "out").path), store, ledger)
    batch = store.get(dataset.manifest["parents"][0])
    assert ledger.rows(tables.Dataset, id=dataset.id)[0].batch_id == batch.id
    assert ledger.rows(tables.Batch, id=batch.id)[0].n_orders == 3000
    recorded = read_batch(batch)
    assert set(recorded.recorded_labels) == {0.0, 1.0}
    assert (recorded.transactions.exit_index == -1).all()


def test_the_dataset_stays_when_its_folder_and_its_files_go(of_batch, workspace, tmp_path):
    copies = [shutil.copy(path, tmp_path) for path in of_batch]
    built = build([tmp_path / path.name for path in of_batch], tmp_path / "out")
    dataset = open_dataset(str(tmp_path / "out"), *workspace)
    shutil.rmtree(tmp_path / "out")
    for path in copies:
        (tmp_path / path).unlink()
    assert verify_dataset(dataset, *workspace, sample=20).metrics["is_proven"]
    assert open_dataset(built.id, *workspace).id == built.id
    assert open_dataset(None, *workspace).id == built.id


def test_opening_a_folder_again_makes_nothing(of_batch, workspace, tmp_path):
    built = build(of_batch, tmp_path / "out")
    dataset = open_dataset(str(built.path), *workspace)
    before = (dataset.path / "manifest.json").stat().st_mtime_ns
    assert open_dataset(str(built.path), *workspace).path == dataset.path
    assert (dataset.path / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "prices.csv, which is gone: put it back"),
        (lambda path: path.write_text("x"), "prices.csv, which was changed since: build the"),
    ],
)
def test_files_that_are_not_there_any_more_are_named(of_batch, workspace, tmp_path, spoil, message):
    files = [tmp_path / path.name for path in of_batch]
    for path, copy in zip(of_batch, files, strict=True):
        shutil.copy(path, copy)
    built = build(files, tmp_path / "out")
    spoil(files[0])
    with pytest.raises(DataError, match=message):
        open_dataset(str(built.path), *workspace)


def test_a_file_of_the_dataset_that_was_changed_is_named(of_batch, workspace, tmp_path):
    built = build(of_batch, tmp_path / "out")
    path = built.file("train.recordio")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="train.recordio is not the file that its manifest lists"):
        open_dataset(str(built.path), *workspace)
    assert workspace[0].find(built.id) is None


def test_a_folder_of_something_else_is_refused(workspace, tmp_path):
    with pytest.raises(StoreError, match="holds no artifact"):
        open_dataset(str(tmp_path), *workspace)
    with workspace[0].create("study-000000000001", parents=[], parameters={}) as draft:
        (draft.path / "file").write_text("x")
    study = workspace[0].get("study-000000000001")
    with pytest.raises(StoreError, match="holds study-000000000001, expected a dataset"):
        open_dataset(str(study.path), *workspace)


def test_a_folder_is_inspected_where_it_lies(of_batch, tmp_path):
    built = build(of_batch, tmp_path / "out")
    facts = inspect_dataset(get_artifact(built.path))
    assert facts["splits"]["train"]["uniqueness"] > 0
    first = pq.read_table(built.file("rows.parquet"), filters=[("split", "=", "train")])
    assert facts["first_rows"][0]["order_id"] == first["order_id"][0].as_py()


def test_a_split_that_is_mapped_is_the_split(of_batch, tmp_path):
    for table_format in ("recordio", "csv"):
        engine = LocalEngine(table_format)
        dataset = build(of_batch, tmp_path / table_format, engine=engine)
        for name in SPLITS:
            one, other = load_split(dataset, name), map_split(dataset, name)
            for field in one.__dataclass_fields__:
                np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_looking_at_a_sample_does_not_read_the_features(of_batch, workspace, tmp_path, monkeypatch):
    dataset = open_dataset(str(build(of_batch, tmp_path / "out").path), *workspace)
    monkeypatch.setattr("trademl.etl.dataset.read_table", None)
    inspect_dataset(dataset)
    assert verify_dataset(dataset, *workspace, sample=30).metrics["is_proven"]
    with pytest.raises(TypeError):
        verify_dataset(dataset, *workspace, sample=None)
