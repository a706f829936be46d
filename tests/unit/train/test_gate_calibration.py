"""The whole way from quotes to verdict on a few simulated markets; `benchmarks/gate.py` has more.

Bounds follow from the binomial distribution: a gate that promotes 5 % of noise promotes 2 or more
of 6 markets once in 30 times; one that promotes 90 % of an edge promotes 3 or fewer of 6 once in 63.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gate import FREE, KINDS, WALK, Case, run_case

SEEDS = range(500, 506)
SHORT = {"n_quotes": 50_000}


def promoted(cases):
    return sum(verdict == "promote" for verdict, _ in map(run_case, cases))


@pytest.mark.parametrize("market", [WALK, FREE], ids=["costs", "free"])
def test_noise_is_not_promoted(market):
    cases = [
        Case(replace(market, seed=seed, **SHORT, **KINDS[k % len(KINDS)]))
        for k, seed in enumerate(SEEDS)
    ]

    assert promoted(cases) <= 1


def test_a_clear_edge_is_promoted():
    cases = [Case(replace(WALK, seed=seed, edge=0.2, **SHORT)) for seed in SEEDS]

    assert promoted(cases) >= 4
