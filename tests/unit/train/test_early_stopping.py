"""The median rule and Hyperband, on curves made by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from trademl.train.early_stopping import Hyperband, StoppingRule, rule_for

FALLING = ((0.9, 0.7, 0.5), (0.8, 0.6, 0.4), (0.7, 0.5, 0.3), (0.6, 0.4, 0.2))


def test_a_loss_above_the_median_of_running_means_stops_a_trial():
    rule = StoppingRule("median", FALLING)

    # Running means after two epochs: 0.8, 0.7, 0.6, 0.5; their median is 0.65.
    assert rule.stops([0.1, 0.66])
    assert not rule.stops([0.9, 0.64])


def test_a_curve_that_ended_early_counts_with_the_mean_of_what_it_has():
    rule = StoppingRule("median", (*FALLING[:3], (0.6,)))

    # After three epochs: 0.7, 0.6, 0.5 and 0.6 (one epoch only); the median is 0.6.
    assert rule.stops([0.1, 0.1, 0.61])
    assert not rule.stops([0.9, 0.9, 0.6])


def test_three_earlier_trials_are_too_few_for_a_median():
    assert not StoppingRule("median", FALLING[:3]).stops([9.0])


def test_hyperband_keeps_one_in_three_on_each_rung():
    rule = StoppingRule("hyperband", ((0.5, 0.5), (0.4, 0.6)), rungs=(2,))

    assert not rule.stops([9.0])  # no rung after one epoch
    assert not rule.stops([0.6, 0.39])
    assert rule.stops([0.6, 0.4])
    assert not StoppingRule("hyperband", ((0.1, 0.1),), rungs=(2,)).stops([0.6, 0.4])


def test_rungs_and_brackets_are_those_of_the_paper():
    # Li et al. 2018, algorithm 1, R = 81 and eta = 3: brackets 4 to 0 begin 81, 34, 15, 8 and 5
    # configurations after 1, 3, 9, 27 and 81 units.
    hyperband = Hyperband(1, 81)

    assert [hyperband.rungs(s) for s in (4, 3, 1, 0)] == [(1, 3, 9, 27), (3, 9, 27), (27,), ()]
    sizes = Counter(hyperband.bracket(n) for n in range(143))
    assert [sizes[s] for s in (4, 3, 2, 1, 0)] == [81, 34, 15, 8, 5]
    assert hyperband.bracket(143) == hyperband.bracket(0) == 4


@pytest.mark.parametrize(("low", "high", "n"), [(1, 2, 1), (1, 3, 2), (2, 18, 3), (1, 15, 3)])
def test_as_many_brackets_as_thirds_fit_between_the_ends(low, high, n):
    assert Hyperband(low, high).n_brackets == n


def test_a_trial_is_held_against_its_own_bracket():
    hyperband = Hyperband(1, 3)  # trials 0 to 2 in bracket 1, 3 and 4 in bracket 0, then again
    curves = {0: (0.1,), 3: (0.2, 0.2, 0.2), 5: (0.3,)}

    rule = rule_for(6, curves, hyperband=hyperband, has_median_rule=False)

    assert rule == StoppingRule("hyperband", ((0.1,), (0.3,)), (1,))
    assert rule_for(4, curves, hyperband=hyperband, has_median_rule=False).rungs == ()


def test_without_a_rule_nothing_stops():
    assert rule_for(9, {0: (0.1,)}, hyperband=None, has_median_rule=False) is None
