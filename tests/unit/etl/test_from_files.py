"""A dataset straight from two files: the original demo's, or an export batch's."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from market_cases import random_walk
from original_cases import START_MS, original_deals, original_ticks, write_rows
from trademl.errors import DataError, StoreError
from trademl.etl.from_files import build_features_from_files
from trademl.etl.recipe import FeatureRecipe, Lags
from trademl.etl.recordio import read_recordio
from trademl.etl.splits import SplitConfig
from trademl.ingest.batch import Batch, write_batch
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.store.artifacts import read_artifact

SPLIT = SplitConfig(embargo=0.0)


def build(prices, transactions, out, *, recipe=FeatureRecipe(), costs=Costs(), **more):  # noqa: B008
    return build_features_from_files(prices, transactions, out, recipe, SPLIT, costs, **more)


@pytest.fixture(scope="module")
def ticks():
    return original_ticks(9000, step=2.0)


@pytest.fixture(scope="module")
def deals(ticks):
    return original_deals(ticks)


@pytest.fixture(scope="module")
def files(ticks, deals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    return (
        write_rows(folder / "price-1593600000000.csv", ticks),
        write_rows(folder / "deals-1593600000000.csv", deals),
    )


@pytest.fixture(scope="module")
def dataset(files, tmp_path_factory):
    return build(*files, tmp_path_factory.mktemp("recomputed") / "out")


@pytest.fixture(scope="module")
def as_recorded(files, tmp_path_factory):
    return build(*files, tmp_path_factory.mktemp("recorded") / "out", labels="recorded")


def original_row(ticks, deal):
    """One row as the original made it: five prices, then 600 per-second mean mids, oldest first.

    Every one minus the mid at entry; seconds before the entry's own, as many as had a tick.
    """
    mid = {t["timestamp"]: (t["BID"] + t["OFFER"]) / 2 for t in ticks}
    entry = next(t for t in ticks if t["timestamp"] == deal["timestamp"])
    by_second = {}
    for at, value in mid.items():
        by_second.setdefault(at // 1000, []).append(value)
    seconds = [s for s in sorted(by_second) if s < entry["timestamp"] // 1000][-600:]
    history = [sum(by_second[s]) / len(by_second[s]) for s in seconds]
    prices = [entry[name] for name in ("BID", "OFFER", "MID_OPEN", "HIGH", "LOW")]
    return np.array(prices + history) - mid[entry["timestamp"]]


def test_columns_equal_the_original_s_where_its_history_was_full(dataset, ticks, deals):
    rows = pq.read_table(dataset.file("rows.parquet")).to_pydict()
    kept = {name: np.flatnonzero(np.array(rows["split"]) == name) for name in ("train", "test")}
    for name, chosen in kept.items():
        features_ND, _ = read_recordio(dataset.file(f"{name}.recordio"))
        assert features_ND.shape == (len(chosen), 605)
        for k in range(0, len(chosen), 97):
            deal = deals[rows["order_id"][chosen[k]]]
            expected = original_row(ticks, deal).astype(np.float32)
            np.testing.assert_allclose(features_ND[k], expected, rtol=1e-6, atol=1e-9)


def test_orders_before_ten_minutes_of_history_are_dropped_and_counted(dataset, deals):
    early = sum(deal["timestamp"] // 1000 < START_MS // 1000 + 600 for deal in deals)
    assert dataset.metrics["dropped"]["no_full_history"] == early == 600


def test_with_a_spread_of_36_points_no_recorded_profit_of_20_earned_money(dataset, deals):
    table = pq.read_table(dataset.file("labels.parquet")).to_pandas()
    claimed = table[(table.recorded_label == 1) & (table.exit_reason != "censored")]
    assert len(claimed) > 1000
    assert (claimed.pnl < 0).all()
    assert (claimed.exit_reason == "stop_loss").all()  # the stop lies within the spread
    facts = dataset.metrics["labels"]
    assert facts["source"] == "recomputed"
    assert facts["n_only_recorded_earned"] == facts["n_disagree"] == len(claimed)
    assert facts["disagree_share"] == len(claimed) / facts["n_compared"]
    assert set(read_recordio(dataset.file("train.recordio"))[1]) == {0.0}


def test_recorded_labels_are_kept_when_asked(as_recorded, deals):
    rows = pq.read_table(as_recorded.file("rows.parquet")).to_pandas()
    outcome = [deals[k]["loss_or_profit"] == "profit" for k in rows.order_id]
    assert rows.label.tolist() == [float(won) for won in outcome]
    assert 0.3 < rows.label.mean() < 0.7
    assert as_recorded.metrics["labels"]["source"] == "recorded"


def test_recorded_exits_for_the_purge_lie_at_or_after_the_original_s(as_recorded, ticks, deals):
    rows = pq.read_table(as_recorded.file("rows.parquet")).to_pandas()
    at = {tick["timestamp"]: k for k, tick in enumerate(ticks)}
    for row in rows.iloc[::301].itertuples():
        deal = deals[row.order_id]
        level = deal["limit_price" if deal["loss_or_profit"] == "profit" else "stop_price"]
        up = level > deal["price"]
        left = next(
            t for t in ticks[at[deal["timestamp"]] + 1 :]
            if (t["OFFER"] >= level if up else t["OFFER"] <= level)
        )  # fmt: skip
        assert row.exit_ns >= left["timestamp"] * 1_000_000
    parts = [rows[rows.split == name] for name in ("train", "validation", "test")]
    for earlier, later in pairwise(parts):
        assert earlier.exit_ns.max() < later.start_ns.min()


def test_orders_that_the_prices_do_not_resolve_are_censored_and_kept(tmp_path):
    quiet = original_ticks(9000, spread=1.0, step=0.01)
    deals = [
        {"timestamp": t["timestamp"], "loss_or_profit": "loss", "type": "buy", "stop": 20,
         "limit": 20, "price": t["OFFER"], "stop_price": 1, "limit_price": 2}
        for t in quiet
    ]  # fmt: skip
    prices = write_rows(tmp_path / "price-1.csv", quiet)
    dataset = build(
        prices, write_rows(tmp_path / "deals-1.csv", deals), tmp_path / "out", time_limit_s=300
    )
    table = pq.read_table(dataset.file("labels.parquet")).to_pandas()
    assert len(table) == 9000
    censored = table[table.exit_reason == "censored"]
    assert 299 <= len(censored) <= 301
    assert censored.label.isna().all()
    assert dataset.metrics["dropped"]["censored"] == len(censored)
    assert dataset.metrics["labels"]["censored"]["n"] == len(censored)


def test_a_deal_on_a_quote_that_cannot_be_traded_is_no_row(tmp_path, ticks, deals):
    broken = [dict(tick) for tick in ticks]
    broken[700]["BID"] = ""
    dataset = build(
        write_rows(tmp_path / "price-1.csv", broken), write_rows(tmp_path / "d.csv", deals),
        tmp_path / "out",
    )  # fmt: skip
    assert dataset.metrics["dropped"]["no_executable_quote"] == 1


def test_the_folder_is_complete_and_made_once(dataset, files):
    names = {"train.recordio", "validation.recordio", "test.recordio", "rows.parquet",
             "labels.parquet", "schema.json"}  # fmt: skip
    assert {p.name for p in dataset.path.iterdir()} == names | {"manifest.json"}
    assert set(dataset.manifest["files"]) == names
    before = (dataset.path / "manifest.json").stat().st_mtime_ns
    assert build(*files, dataset.path).id == dataset.id
    assert (dataset.path / "manifest.json").stat().st_mtime_ns == before


def test_a_folder_of_another_dataset_is_left_alone(dataset, files):
    with pytest.raises(StoreError, match=f"holds {dataset.id}, made from other files, settings"):
        build(*files, dataset.path, labels="recorded")
    assert read_artifact(dataset.path).id == dataset.id


def test_a_folder_of_anything_else_is_left_alone(files, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not an empty folder"):
        build(*files, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_build_that_fails_leaves_nothing(files, tmp_path):
    few = write_rows(tmp_path / "deals-1.csv", [])
    few.write_text(files[1].read_text().splitlines(keepends=True)[700])
    with pytest.raises(DataError, match="too few rows"):
        build(files[0], few, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["deals-1.csv"]


@pytest.fixture
def batch_files(tmp_path):
    quotes = random_walk(4000, seed=3)
    bot = OrderBotConfig(interval_s=2, barrier_unit="price", time_limit_s=60)
    orders = place_orders(quotes, bot)
    done = settle(quotes, orders, Costs(fee_per_unit=0.05))
    rows = np.flatnonzero(done.exit_index >= 0)
    batch = Batch(quotes, orders.take(rows), done.take(rows), rows)
    write_batch(tmp_path, batch, instrument="TEST", first_seq=100)
    return tmp_path / "prices.csv", tmp_path / "transactions.csv"


RECIPE = FeatureRecipe(lags=(Lags(60),))


def test_the_files_of_an_export_batch_keep_their_labels(batch_files, tmp_path):
    dataset = build(*batch_files, tmp_path / "out", recipe=RECIPE, costs=Costs(fee_per_unit=0.05))
    facts = dataset.metrics["labels"]
    assert facts["source"] == "recorded"
    assert facts["n_disagree"] == 0
    assert facts["n_compared"] == dataset.metrics["n_orders"]


def test_other_costs_show_as_disagreement(batch_files, tmp_path):
    costs = Costs(fee_per_unit=0.6)  # both sides: more than a take profit of one point
    facts = build(*batch_files, tmp_path / "out", recipe=RECIPE, costs=costs).metrics
    n_winners = json.loads((tmp_path / "out" / "manifest.json").read_text())["metrics"]["labels"]
    assert facts["labels"]["n_only_recorded_earned"] > 0
    assert facts["labels"]["n_only_recorded_earned"] == n_winners["n_disagree"]
    again = build(*batch_files, tmp_path / "again", recipe=RECIPE, costs=costs, labels="recomputed")
    assert again.metrics["label_rate"] == 0.0


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (1, ",take_profit,0", ",won,0", r"transactions.csv: line \d+: exit_reason is 'won', expected cens"),
        (1, ",buy,", ",hold,", r"transactions.csv: line 2: side is 'hold', expected buy or sell"),
        (0, "seq,ts_event", "sequence,ts_event", r"prices.csv: has no column seq; it has sequence"),
        (0, "\n101,", "\n999,", r"prices.csv: line 3: seq is '999', expected one more than"),
        (1, "id,instrument", "id,what", None),
    ],
)  # fmt: skip
def test_a_bad_batch_file_is_refused_with_its_line(batch_files, tmp_path, file, old, new, message):
    text = batch_files[file].read_text().replace('"', "")
    assert old in text
    batch_files[file].write_text(text.replace(old, new, 1))
    if message is None:  # a column that nothing reads
        build(*batch_files, tmp_path / "out", recipe=RECIPE)
        return
    with pytest.raises(DataError, match=message):
        build(*batch_files, tmp_path / "out", recipe=RECIPE)


def test_files_of_two_kinds_are_refused(batch_files, files, tmp_path):
    with pytest.raises(DataError, match="both with a header or both without"):
        build(batch_files[0], files[1], tmp_path / "out")
