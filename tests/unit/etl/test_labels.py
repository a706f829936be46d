"""Labels: recorded, recomputed, their disagreement, and what censoring would hide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from market_cases import START_S, make_quotes
from trademl.etl.labels import Labelling, label_batch, label_columns, label_facts, labels_table
from trademl.ingest.batch import Batch
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S

NAN = np.nan


def batch_of(bids, *, at, side=None, barrier=2.0, limit_s=100, spread=0.5, recorded=None):
    quotes = make_quotes(bids, spread=spread)
    n = len(at)
    orders = Orders(
        np.array(at),
        np.ones(n, np.int8) if side is None else np.array(side, np.int8),
        np.full(n, barrier),
        np.full(n, barrier),
        np.full(n, limit_s * NS_PER_S),
    )
    done = settle(quotes, orders, Costs())
    if recorded is not None:  # a file that holds labels and no exits
        absent = np.full(n, NAN)
        done = replace(
            done, exit_index=np.full(n, -1), exit_price=absent, pnl=absent,
            reason=np.zeros(n, np.int8),
        )  # fmt: skip
        recorded = np.array(recorded, np.float32)
    return Batch(quotes, orders, done, np.arange(n), recorded)


def second(k):
    return (START_S + k) * NS_PER_S


def test_recorded_labels_of_a_batch_stand_as_they_are():
    batch = batch_of([10, 13, 7, 13], at=[0, 1])
    labels = label_batch(batch, Labelling("recorded"))
    assert labels.label_N.tolist() == [1.0, 0.0]
    assert labels.exit_ns_N.tolist() == [second(1), second(2)]
    np.testing.assert_array_equal(labels.pnl_N, batch.transactions.pnl)


def test_recomputed_labels_are_settled_again_at_the_costs_given():
    batch = batch_of([10, 13, 7, 13], at=[0, 1])
    labels = label_batch(batch, Labelling("recomputed", Costs(fee_per_unit=1.5)))
    assert labels.pnl_N.tolist() == [2.0 - 3.0, 7.0 - 13.5 - 3.0]
    assert labels.label_N.tolist() == [0.0, 0.0]
    assert label_facts(labels.figures)["n_disagree"] == 1
    assert label_facts(labels.figures)["disagree_share"] == 0.5
    assert label_facts(labels.figures)["n_only_recorded_earned"] == 1


def test_a_recorded_label_without_an_exit_takes_its_profit_from_the_fill_model():
    batch = batch_of([10, 13, 7], at=[0, 1], recorded=[0, 1])  # both wrong, and kept
    labels = label_batch(batch, Labelling("recorded"))
    assert labels.label_N.tolist() == [0.0, 1.0]
    assert labels.pnl_N.tolist() == [2.0, -6.5]
    assert label_facts(labels.figures)["n_disagree"] == 2


@pytest.mark.parametrize(
    ("side", "recorded", "bids", "known_at"),
    [
        # entry at an ask of 10.5; the level is 12.5 above or 8.5 below it
        (1, 1, [10, 12, 12.5, 9], 2),  # the ask reaches 12.5 at 1, the bid at 2
        (1, 0, [10, 8.5, 8, 9], 2),  # the bid reaches 8.5 at 1, the ask at 2
        # entry at a bid of 10; the level is 8 below or 12 above it
        (-1, 1, [10, 8, 7.5, 9], 2),
        (-1, 0, [10, 11.5, 12, 9], 2),
        (1, 1, [10, 11, 10, 11], 3),  # never seen: the end of the prices
    ],
)
def test_a_recorded_label_is_known_when_both_sides_reached_its_barrier(
    side, recorded, bids, known_at
):
    batch = batch_of(bids, at=[0], side=[side], recorded=[recorded])
    labels = label_batch(batch, Labelling("recorded"))
    assert labels.exit_ns_N.tolist() == [second(known_at)]


def test_a_time_exit_after_the_recorded_one_moves_the_end_of_the_interval():
    batch = batch_of([10, 8.5, 8, 9, 9], at=[0], barrier=2.0, recorded=[0])
    late = batch_of([10, 10, 10, 10, 12.5], at=[0], limit_s=3, recorded=[0])
    assert label_batch(batch, Labelling("recorded")).exit_ns_N[0] == second(2)
    assert label_batch(late, Labelling("recorded")).exit_ns_N[0] == second(4)


def test_censored_orders_are_kept_and_marked_at_the_last_executable_touch():
    batch = batch_of([10, 10.5, 11, 99], at=[0, 1, 2], side=[1, -1, 1])
    batch.quotes.flags[3] = 1
    batch = replace(batch, transactions=settle(batch.quotes, batch.orders, Costs()))
    costs = Costs(fee_per_unit=0.25, slippage=0.125)
    labels = label_batch(batch, Labelling("recomputed", costs))
    assert np.isnan(labels.label_N).all()
    assert np.isnan(labels.pnl_N).all()
    assert not labels.is_labelled.any()
    # buy at 10.5 + 1/8, left at 11 - 1/8; sell at 10.5 - 1/8, left at 11.5 + 1/8; fees 0.5
    assert labels.marked_pnl_N.tolist() == [
        10.875 - 10.625 - 0.5, 10.375 - 11.625 - 0.5, 10.875 - 11.625 - 0.5,
    ]  # fmt: skip


def test_the_bias_of_leaving_out_the_censored_is_reported():
    # order 0 wins at once; orders 1 and 2 hang on until the end, below their entries
    batch = batch_of([10, 12.5, 12.25, 12.0], at=[0, 1, 2])
    facts = label_facts(label_batch(batch, Labelling("recomputed")).figures)["censored"]
    assert facts["n"] == 2
    assert facts["label_rate_without"] == 1.0
    assert facts["label_rate_with"] == pytest.approx(1 / 3)
    assert facts["label_rate_bias"] == pytest.approx(2 / 3)
    assert facts["mean_pnl_without"] == 2.0
    assert facts["mean_pnl_with"] == pytest.approx((2.0 + (12 - 13) + (12 - 12.75)) / 3)


def test_nothing_to_compare_is_none_and_not_nan():
    facts = label_facts(label_batch(batch_of([10, 10], at=[0]), Labelling()).figures)
    assert facts["disagree_share"] is None
    assert facts["censored"]["mean_pnl_without"] is None
    assert facts["censored"]["mean_pnl_bias"] is None


def test_every_order_has_a_line():
    batch = batch_of([10, 12.5, 12.25, 12.0], at=[0, 1, 2])
    labels = label_batch(batch, Labelling("recomputed"))
    table = labels_table(label_columns(batch, labels), ["exit_reason", "label", "exit_ns"])
    assert table["exit_reason"].to_pylist() == ["take_profit", "censored", "censored"]
    assert table["label"].to_pylist() == [1.0, None, None]
    assert table["exit_ns"].to_pylist() == [second(1), second(3), second(3)]


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="expected recorded or recomputed"):
        Labelling("guessed")
