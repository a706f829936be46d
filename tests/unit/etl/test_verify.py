"""Planted leaks: each must be caught by the proof, and an honest dataset must pass it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import trademl.etl.features as features
from market_cases import random_walk
from trademl.etl.dataset import Split
from trademl.etl.labels import Labelling
from trademl.etl.recipe import FeatureRecipe, Indicator, Lags
from trademl.etl.verify import examine_dataset
from trademl.ingest.batch import Batch
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S
from trademl.market.seconds import SecondGrid, second_grid

COSTS = Costs(fee_per_unit=0.05)
LABELLING = Labelling("recomputed", COSTS)
RECIPE = FeatureRecipe(
    lags=(Lags(20), Lags(3, 5)),
    max_gap_s=15,
    volatility_s=(10,),
    indicators=(Indicator("RSI", 3, {"timeperiod": 3}),),
)


@pytest.fixture
def batch():
    quotes = random_walk(6000, seed=11, per_s=3)
    at = np.arange(0, 5000, 25)
    n = len(at)
    orders = Orders(
        at, np.ones(n, np.int8), np.full(n, 1.0), np.full(n, 1.0), np.full(n, 30 * NS_PER_S)
    )
    return Batch(quotes, orders, settle(quotes, orders, COSTS), 1000 + np.arange(n))


def dataset(batch, recipe=RECIPE, *, usable=None):
    """Return splits built as `etl.build` builds them, from the whole recording."""
    at = batch.orders.quote_index
    usable = features.usable_rows(batch.quotes, at, recipe) if usable is None else usable
    rows = np.flatnonzero(usable & ~np.isnan(batch.transactions.pnl))
    done, ts_event = batch.transactions, batch.quotes.ts_event
    out = np.empty((len(rows), recipe.feature_dim), np.float32)
    source = features._source(batch.quotes, features.second_grid(batch.quotes), at[rows], recipe)
    source.fill(out)
    everything = Split(
        out,
        done.label[rows],
        batch.order_id[rows],
        ts_event[at[rows]],
        ts_event[done.exit_index[rows]],
        done.pnl[rows],
    )
    third = len(rows) // 3
    parts = {"train": slice(0, third - 20), "test": slice(third + 20, None)}
    return {name: take(everything, part) for name, part in parts.items()}


def take(split, rows):
    return Split(*(getattr(split, name)[rows] for name in split.__dataclass_fields__))


def examine(splits, batch, recipe=RECIPE, **more):
    return examine_dataset(splits, batch, recipe, LABELLING, **{"sample": None, **more})


def test_an_honest_dataset_is_proven(batch):
    splits = dataset(batch)
    evidence = examine(splits, batch)
    assert evidence.is_proven, evidence.faults
    assert evidence.n_rows == sum(map(len, splits.values())) > 100
    assert evidence.n_cells == evidence.n_rows * RECIPE.feature_dim


def test_a_sample_looks_at_that_many_rows_of_all_splits(batch):
    evidence = examine(dataset(batch), batch, sample=40)
    assert evidence.n_rows == 40
    assert evidence.is_proven


def leaky_grid(change):
    def make(quotes):
        grid = second_grid(quotes)
        return SecondGrid(grid.start_s, change(grid.mean_T.copy(), grid), grid.last_T, grid.age_T)

    return make


def backward_filled(mean, grid):
    own = np.flatnonzero(grid.age_T == 0)
    following = own[np.minimum(np.searchsorted(own, np.arange(len(mean))), len(own) - 1)]
    return mean[following]


def centred(mean, _):
    return np.convolve(np.pad(mean, 1, mode="edge"), np.ones(3) / 3, mode="valid")


def one_second_late(mean, _):
    return np.append(mean[1:], mean[-1])


@pytest.mark.parametrize("change", [backward_filled, centred, one_second_late])
def test_a_leak_in_the_code_that_builds_and_verifies_is_caught(batch, monkeypatch, change):
    monkeypatch.setattr(features, "second_grid", leaky_grid(change))
    evidence = examine(dataset(batch), batch)
    assert evidence.n_wrong_cells > 0
    assert "column mid_lag" in evidence.faults[0]


@pytest.mark.parametrize("change", [backward_filled, centred, one_second_late])
def test_a_leak_in_the_dataset_alone_is_caught(batch, monkeypatch, change):
    with monkeypatch.context() as planted:
        planted.setattr(features, "second_grid", leaky_grid(change))
        splits = dataset(batch)
    assert examine(splits, batch).n_wrong_cells > 0


def test_a_scaler_fitted_on_all_rows_is_caught(batch):
    splits = dataset(batch)
    everything = np.concatenate([s.features_ND for s in splits.values()])
    for split in splits.values():
        split.features_ND[:] = (split.features_ND - everything.mean(0)) / (everything.std(0) + 1e-9)
    assert examine(splits, batch).n_wrong_cells > 0


def test_a_label_among_the_columns_is_caught(batch):
    splits = dataset(batch)
    for split in splits.values():
        split.features_ND[:, 0] = split.label_N
    evidence = examine(splits, batch)
    assert "column bid" in evidence.faults[0]


def test_a_label_as_a_further_column_is_caught(batch):
    splits = {
        name: Split(
            np.column_stack([s.features_ND, s.label_N]),
            s.label_N, s.order_id_N, s.as_of_N, s.exit_N, s.pnl_N,
        )
        for name, s in dataset(batch).items()
    }  # fmt: skip
    evidence = examine(splits, batch)
    n_columns = RECIPE.feature_dim
    assert f"has {n_columns + 1} cells, the cut data give {n_columns}" in evidence.faults[0]


def test_a_label_that_is_not_what_was_earned_is_caught(batch):
    splits = dataset(batch)
    splits["test"].label_N[0] = 1 - splits["test"].label_N[0]
    evidence = examine(splits, batch)
    assert (evidence.n_wrong_labels, evidence.n_wrong_cells) == (1, 0)
    assert evidence.faults[0].startswith("test row 0: label")


def test_overlapping_splits_are_caught(batch):
    splits = dataset(batch)
    overlapping = {"train": splits["train"], "test": splits["train"]}
    assert examine(overlapping, batch).n_overlaps > 0


def test_indicators_on_sparse_bars_are_no_false_alarm():
    quotes = random_walk(3000, seed=5, per_s=0.12)
    recipe = FeatureRecipe(
        lags=(), spread=True, indicators=(Indicator("SMA", 10, {"timeperiod": 4}),)
    )
    at = np.arange(50, 2900, 10)
    n = len(at)
    orders = Orders(
        at, np.ones(n, np.int8), np.full(n, 1.0), np.full(n, 1.0), np.full(n, 30 * NS_PER_S)
    )
    batch = Batch(quotes, orders, settle(quotes, orders, COSTS), np.arange(n))
    for max_gap_s in (3, 60):
        gappy = replace(recipe, max_gap_s=max_gap_s)
        evidence = examine(dataset(batch, gappy), batch, gappy)
        assert evidence.n_rows > 0
        assert evidence.is_proven, evidence.faults
