"""Cut a network into stages of about equal weight.

Letters: L layers, S stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from trademl.train.parallel.costs import LayerCost
from trademl.train.parallel.distribution import Distribution


def partition(costs: Sequence[LayerCost], distribution: Distribution) -> list[range]:
    """Return the layers of each stage: the given split, else a balanced one.

    Each layer weighs its share of the network's bytes (weights, gradients, moments, activations)
    and its share of the arithmetic, mixed by ``memory_weight``.
    """
    if distribution.split_at:
        cuts = [0, *distribution.split_at, len(costs)]
        return [range(a, b) for a, b in pairwise(cuts)]
    n_bytes = sum(c.state_bytes + c.activation_bytes for c in costs)
    flops = sum(c.flops for c in costs)
    weight_L = [
        distribution.memory_weight * (c.state_bytes + c.activation_bytes) / n_bytes
        + (1.0 - distribution.memory_weight) * c.flops / flops
        for c in costs
    ]
    return balanced(weight_L, distribution.n_stages)


def balanced(weight_L: Sequence[float], n_stages: int) -> list[range]:
    """Return consecutive ranges, none empty, whose heaviest is as light as can be.

    Among equally good cuts the one whose stages weigh the least in squares, so that the others are
    even too. Time grows as ``S L^2``.

    Examples
    --------
    >>> balanced([1.0, 1.0, 1.0, 3.0], 2)
    [range(0, 3), range(3, 4)]
    """
    n = len(weight_L)
    before = [0.0]
    for weight in weight_L:
        before.append(before[-1] + weight)
    # best[i]: heaviest stage, sum of squares and cuts of the best cut of the first i layers
    best: dict[int, tuple[float, float, list[int]]] = {
        i: (before[i], before[i] ** 2, [0]) for i in range(1, n + 1)
    }
    for stage in range(1, n_stages):
        best = {
            i: min(_extend(best[j], j, before[i] - before[j]) for j in best if j < i)
            for i in range(stage + 1, n + 1)
        }
    cuts = [*best[n][2], n]
    return [range(a, b) for a, b in pairwise(cuts)]


def _extend(
    found: tuple[float, float, list[int]], cut: int, weight: float
) -> tuple[float, float, list[int]]:
    heaviest, squares, cuts = found
    return max(heaviest, weight), squares + weight**2, [*cuts, cut]
