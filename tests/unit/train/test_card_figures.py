"""A card's figures: each with its interval, beside what needs no model."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.etl.dataset import Split
from trademl.train.card_figures import measured_figures
from trademl.train.card_text import card_markdown

SECOND = 1_000_000_000


def split(label_N, pnl_N, held_s=1):
    n = len(label_N)
    as_of_N = np.arange(n, dtype=np.int64) * 10 * SECOND
    return Split(
        np.zeros((n, 1), np.float32), np.asarray(label_N, np.float32), np.arange(n),
        as_of_N, as_of_N + held_s * SECOND, np.asarray(pnl_N, np.float64),
    )  # fmt: skip


def figures(rows, score_N, flagged_N, seed=1):
    score_N, flagged_N = np.asarray(score_N, np.float32), np.asarray(flagged_N, bool)
    found = measured_figures(rows, score_N, flagged_N, split="validation", seed=seed)
    return {figure.name: figure for figure in found}


def test_figures_of_five_orders_by_hand():
    rows = split([1, 0, 1, 0, 0], [2.0, -1.0, 3.0, -1.0, -1.0])
    found = figures(rows, [0.9, 0.8, 0.4, 0.3, 0.1], [1, 1, 0, 0, 0])

    told = {name: (f.value, f.baseline) for name, f in found.items()}
    assert told["precision"] == (1 / 2, 2 / 5)
    assert told["recall"] == (1 / 2, 2 / 5)
    assert told["mean net PnL of a flagged order"] == pytest.approx((0.5, 0.4))
    # of the six pairs of a 1 and a 0 one is the wrong way round
    assert told["ROC AUC"] == pytest.approx((5 / 6, 0.5))
    assert all(f.low is None for f in found.values())  # five orders are no interval


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    label_N, score_N = rng.integers(0, 2, 300), rng.integers(0, 9, 300) / 9
    pairs = score_N[label_N == 1][:, None] - score_N[label_N == 0]

    found = figures(split(label_N, rng.normal(size=300)), score_N, score_N > 0.5)["ROC AUC"]
    assert found.value == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert found.low < found.value < found.high


def test_an_interval_is_as_wide_as_the_normal_one_where_orders_are_independent():
    rng = np.random.default_rng(1)
    label_N = rng.random(4000) < 0.3
    found = figures(split(label_N, rng.normal(size=4000)), label_N, np.ones(4000))["precision"]

    deviation = np.sqrt(0.3 * 0.7 / 4000)
    assert (found.high - found.low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.15)


def test_orders_that_overlap_make_an_interval_wider():
    rng = np.random.default_rng(2)
    label_N = np.repeat(rng.random(40) < 0.5, 100)  # a hundred orders share their luck
    pnl_N = rng.normal(size=4000)

    apart, together = (
        figures(split(label_N, pnl_N, held_s=held), label_N, np.ones(4000))["precision"]
        for held in (1, 1000)
    )
    assert together.high - together.low > 1.8 * (apart.high - apart.low)


CARD = {
    "id": "model-1", "kind": "linear regression", "hash": {"model.tar.gz": "ab"},
    "data": {
        "instrument": "A|B", "columns": 2, "dataset": "d-1",
        "splits": {"train": {"rows": 3, "from_ns": 0, "to_ns": 60 * SECOND, "label_rate": None,
                             "mean_pnl": 0.1}},
    },
    "costs": {"fee_bps": 1.0},
    "model": {"study": "s-1", "trial": 0, "hyperparameters": {"wd": "1"}, "threshold": None},
    "selection": {"verdict": "no edge after costs", "reasons": ["too few"]},
    "figures": [{"name": "gain", "split": "validation", "value": 0.25, "low": None, "high": None,
                 "baseline": 0.0, "versus": "the mean"}],
    "limits": ["few rows"],
}  # fmt: skip


def test_a_card_begins_with_its_verdict_and_shows_no_number_without_its_baseline():
    text = card_markdown(CARD)

    assert text.splitlines()[2] == "**no edge after costs**"
    assert "| gain | validation | 0.25 | none | 0 | the mean |" in text
    assert "A\\|B" not in text.split("## Data")[0]
    assert text.endswith("- few rows\n")
