"""Cutting a network into stages, and what a pipeline's schedule costs."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from trademl.train.parallel.partition import balanced
from trademl.train.parallel.schedules import bubble_share, microbatches_in_flight


def heaviest(weights, cuts) -> float:
    return max(sum(weights[a:b]) for a, b in pairwise([0, *cuts, len(weights)]))


@pytest.mark.parametrize("n_stages", [1, 2, 3, 5])
def test_no_cut_has_a_lighter_heaviest_stage(n_stages):
    for seed in range(30):
        weights = np.random.default_rng(seed).exponential(size=8).tolist()

        stages = balanced(weights, n_stages)

        cuts = [stage.start for stage in stages[1:]]
        every = combinations(range(1, 8), n_stages - 1)
        assert [n for stage in stages for n in stage] == list(range(8))
        assert heaviest(weights, cuts) == pytest.approx(min(heaviest(weights, c) for c in every))


def test_even_layers_are_cut_evenly_though_one_is_heavy():
    assert [len(s) for s in balanced([9.0, 1.0, 1.0, 1.0, 1.0], 3)] == [1, 2, 2]


def simulated_bubble(n_ranks: int, microbatches: int) -> float:
    """Play GPipe through slot by slot: forwards and backwards of one unit each."""
    forward_end = np.zeros((n_ranks, microbatches))
    for m in range(microbatches):
        for r in range(n_ranks):
            before = forward_end[r - 1, m] if r else 0.0
            mine = forward_end[r, m - 1] if m else 0.0
            forward_end[r, m] = max(before, mine) + 1.0
    span = 2 * forward_end[-1, -1]  # backwards mirror forwards
    return 1.0 - 2 * microbatches / span


@pytest.mark.parametrize(("n_ranks", "microbatches"), [(2, 1), (2, 8), (4, 8), (8, 32)])
def test_bubble_of_a_schedule_played_through(n_ranks, microbatches):
    found = bubble_share(n_ranks=n_ranks, stages_per_rank=1, microbatches=microbatches)

    assert found == pytest.approx(simulated_bubble(n_ranks, microbatches))


def test_one_forward_one_backward_holds_fewer_microbatches_than_gpipe():
    shape = {"n_ranks": 4, "stages_per_rank": 1, "microbatches": 16}

    assert [microbatches_in_flight("1f1b", rank=r, **shape) for r in range(4)] == [4, 3, 2, 1]
    assert microbatches_in_flight("gpipe", rank=3, **shape) == 16
