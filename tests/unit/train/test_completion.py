"""What ends a search early."""

from __future__ import annotations

import pytest

from trademl.train.completion import Completion, ending, n_idle
from trademl.train.trials import TrialResult


def trials(*objectives, direction="Maximize"):
    return [
        TrialResult(n, {}, value, direction, failure=None if value is not None else "broke")
        for n, value in enumerate(objectives)
    ]


def end(completion, *objectives, direction="Maximize", runtime_s=0.0):
    return ending(completion, trials(*objectives, direction=direction), runtime_s=runtime_s)


@pytest.mark.parametrize(("direction", "reached"), [("Maximize", 0.9), ("Minimize", 0.7)])
def test_a_target_is_reached_in_the_objectives_direction(direction, reached):
    target = Completion(target=0.8)

    assert end(target, None, 0.8, direction=direction) == "target_reached"
    assert end(target, None, reached, direction=direction) == "target_reached"
    assert end(target, 1.6 - reached, direction=direction) is None


def test_trials_that_are_no_better_are_counted_from_the_best():
    assert n_idle(trials(0.5, 0.7, 0.7, None, 0.6)) == 3
    assert n_idle(trials(0.5, 0.7)) == 0
    assert n_idle(trials(None, None)) == 2
    assert n_idle([]) == 0


def test_a_search_that_no_longer_improves_ends():
    assert end(Completion(max_idle=3), 0.5, 0.7, 0.7, 0.6) is None
    assert end(Completion(max_idle=3), 0.5, 0.7, 0.7, 0.6, 0.1) == "not_improving"


def test_ten_trials_that_gain_less_than_a_thousandth_have_converged():
    completion = Completion(on_convergence=True)

    assert end(completion, 0.8, *[0.8004] * 10) == "converged"
    assert end(completion, 0.8, *[0.8010] * 10) is None
    assert end(completion, 0.8, *[0.8004] * 9) is None


def test_time_ends_a_search_at_its_limit():
    completion = Completion(max_runtime_s=120)

    assert end(completion, 0.5, runtime_s=119.9) is None
    assert end(completion, 0.5, runtime_s=120.0) == "out_of_time"


def test_nothing_ends_a_search_by_default():
    assert end(Completion(), *[0.5] * 100, runtime_s=1e9) is None
