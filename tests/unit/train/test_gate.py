"""The gate on test rows: what promotes, what holds, what rejects, each in plain words."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.errors import ConfigError
from trademl.stats.proportion import wilson_lower_bound
from trademl.train.duel import fight, no_duel
from trademl.train.gate import GateConfig, weigh

MINUTE_NS = 60_000_000_000
CALM = {"pbo": 0.4, "loss_probability": 0.0, "n_combinations": 70}


def rows(split_of, *, share=0.75, n=600, hold_ns=MINUTE_NS, win=1.0, seed=0):
    """Return orders of which every second is flagged; those win ``share`` of the time exactly."""
    rng = np.random.default_rng(seed)
    is_flagged = np.arange(n) % 2 == 0
    label = rng.random(n) < 0.4
    n_flagged = int(is_flagged.sum())
    label[is_flagged] = rng.permutation(np.arange(n_flagged) < round(share * n_flagged))
    split = split_of(np.zeros((n, 1)), label, np.where(label, win, -1.0), hold_ns=hold_ns)
    return split, is_flagged


def judge(split, is_flagged, *, n_tried=10, overfitting=CALM, duel=None, **config):
    return weigh(
        split, is_flagged, GateConfig(**config), n_tried=n_tried, overfitting=overfitting,
        duel=duel, seed=0,
    )  # fmt: skip


def outcome(result, name):
    return next(check for check in result.checks if check.name == name)


def test_a_clear_edge_is_promoted(split_of):
    found = judge(*rows(split_of))

    assert (found.verdict, found.reasons, found.has_edge) == ("promote", [], True)


def test_figures_are_those_of_the_flagged_orders(split_of):
    found = judge(*rows(split_of)).figures

    assert (found.n_rows, found.n_flagged, found.precision) == (600, 300, 0.75)
    assert found.mean_pnl == 0.5  # three wins of 1 for one loss of 1
    assert found.break_even == 0.5
    assert found.effective_n == 300.0  # two minutes apart, alive for one
    assert found.sharpe == pytest.approx(0.5 / np.sqrt(0.75))
    assert found.precision_lower_bound == wilson_lower_bound(0.75, 300, confidence=0.95)


def test_overlapping_lives_count_as_less_evidence(split_of):
    apart, crowded = (judge(*rows(split_of, hold_ns=m * MINUTE_NS)).figures for m in (1, 20))

    # 20 minutes long, begun every 2: ten live side by side, fewer at both ends
    assert crowded.effective_n == pytest.approx(30, rel=0.2)
    assert crowded.precision_lower_bound < apart.precision_lower_bound
    assert crowded.deflated_sharpe < apart.deflated_sharpe


def test_the_original_winner_is_rejected_for_its_recall(split_of):
    # precision 1.0 at recall 0.017, as the original demo deployed it
    label = np.arange(2000) % 2 == 1
    is_flagged = label & (np.arange(2000) < 34)

    found = judge(split_of(np.zeros((2000, 1)), label), is_flagged)

    assert found.verdict == "reject"
    assert "recall 0.017 is below the floor of 0.05" in found.reasons
    assert "17 test orders are flagged, fewer than the floor of 30" in found.reasons


def test_an_edge_that_few_orders_show_is_held(split_of):
    found = judge(*rows(split_of, share=0.6, n=120))

    assert found.verdict == "hold"
    assert not found.has_edge
    assert outcome(found, "precision").verdict == "hold"


def test_a_loss_after_costs_is_rejected(split_of):
    split, is_flagged = rows(split_of, win=0.2)

    found = judge(split, is_flagged)

    assert found.verdict == "reject"
    assert "mean net PnL per flagged order is -0.1, not above 0" in found.reasons
    # wins of 0.2 and losses of 1 cancel at a precision of 5/6
    assert "precision 0.75 is not above the higher of break-even and base rate, 0.833" in (
        found.reasons
    )


def test_a_precision_that_everything_has_is_rejected(split_of):
    split, _ = rows(split_of, win=3.0)

    found = judge(split, np.ones(len(split), bool))

    assert outcome(found, "net PnL").verdict == "promote"  # the market rose
    assert outcome(found, "precision").verdict == "reject"


def test_earlier_looks_make_it_harder(split_of):
    split, is_flagged = rows(split_of, share=0.615)

    first, hundredth = (judge(split, is_flagged, n_tried=n) for n in (10, 1000))

    assert first.verdict == "promote"
    assert hundredth.verdict == "hold"
    assert "after 1000 tries on this span luck alone reaches" in hundredth.reasons[0]


def test_a_search_that_loses_where_it_did_not_choose_is_held(split_of):
    found = judge(*rows(split_of), overfitting={**CALM, "loss_probability": 0.6})

    assert found.verdict == "hold"
    assert "loses money on the other half in 60% of 70 ways" in found.reasons[0]


def test_equally_good_trials_are_no_overfitting_unless_asked(split_of):
    alike = {**CALM, "pbo": 0.9}

    assert judge(*rows(split_of), overfitting=alike).verdict == "promote"
    assert judge(*rows(split_of), overfitting=alike, max_pbo=0.5).verdict == "hold"


def test_a_champion_that_cannot_be_compared_stays(split_of):
    found = judge(*rows(split_of), duel=no_duel("model-1", "its files are gone"))

    assert (found.verdict, found.has_edge) == ("hold", True)
    assert found.reasons == ["its files are gone"]


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("n", [1, 40])
def test_degenerate_rows_are_no_crash_and_no_promotion(split_of, label, flagged, n):
    split = split_of(np.zeros((n, 1)), np.full(n, label))

    assert judge(split, np.full(n, flagged)).verdict == "reject"


def test_the_result_is_json_to_the_last_number(split_of):
    import json

    found = judge(*rows(split_of), duel=no_duel("model-1", "no"))

    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["figures"]["n_flagged"] == 300


def test_a_challenger_that_earns_more_on_the_same_orders_wins(split_of):
    split, is_flagged = rows(split_of)

    found = fight(
        "model-1", split, is_flagged, ~is_flagged, np.ones(600, bool), confidence=0.95, seed=0
    )

    assert found.is_won
    # it earns 0.5 on one half of the orders; the champion earns the other half's mean
    theirs = split.pnl_N[~is_flagged].mean()
    assert found.mean_gain == pytest.approx((0.5 - theirs) / 2)


def test_equals_do_not_replace_each_other(split_of):
    split, is_flagged = rows(split_of)

    found = fight(
        "model-1", split, is_flagged, is_flagged, np.ones(600, bool), confidence=0.95, seed=0
    )

    assert (found.mean_gain, found.is_won) == (0.0, False)
    assert "lower bound 0: not above 0" in found.says


def test_only_later_orders_are_compared(split_of):
    split, is_flagged = rows(split_of)
    is_later = np.arange(600) >= 500

    found = fight("model-1", split, is_flagged, ~is_flagged, is_later, confidence=0.95, seed=0)

    gain = np.where(is_flagged, split.pnl_N, -split.pnl_N)[500:]
    assert (found.n_later, found.n_flagged) == (100, 50)
    assert found.mean_gain == pytest.approx(gain.mean())


def test_no_later_orders_are_too_little_to_compare(split_of):
    split, is_flagged = rows(split_of)

    found = fight(
        "model-1", split, is_flagged, is_flagged, np.zeros(600, bool), confidence=0.95, seed=0
    )

    assert not found.is_won
    assert "0 test orders are later than all data of the champion model-1" in found.says


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"min_recall": -0.1}, "min_recall is -0.1"),
        ({"max_pbo": 1.1}, "max_pbo is 1.1"),
        ({"max_loss_probability": 2.0}, "max_loss_probability is 2.0"),
        ({"min_predicted_positives": 0}, "min_predicted_positives is 0"),
        ({"confidence": 0.4}, "confidence is 0.4"),
    ],
)
def test_settings_out_of_range_are_refused(values, name):
    with pytest.raises(ConfigError, match=name):
        GateConfig(**values)
