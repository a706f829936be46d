"""The probability of backtest overfitting: by hand, on noise, on skill."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from trademl.stats.overfitting import overfitting


def by_hand(returns, n_stretches):
    """Count combinations one after the other, as section 2.2 of the paper words it."""
    parts = np.array_split(returns, n_stretches)
    n_low, n_loss, halves = 0, 0, list(combinations(range(n_stretches), n_stretches // 2))
    for half in halves:
        inside = np.concatenate([parts[i] for i in half])
        outside = np.concatenate([parts[i] for i in range(n_stretches) if i not in half])
        best = np.argmax(inside.mean(0) / inside.std(0))
        score = outside.mean(0) / outside.std(0)
        relative_rank = (np.argsort(np.argsort(score))[best] + 1) / (returns.shape[1] + 1)
        n_low += np.log(relative_rank / (1 - relative_rank)) <= 0
        n_loss += score[best] < 0
    return n_low / len(halves), n_loss / len(halves)


@pytest.mark.parametrize("n_stretches", [2, 4, 8])
def test_every_combination_counted_gives_the_same(n_stretches):
    returns = np.random.default_rng(n_stretches).normal(0.05, 1.0, (203, 7))

    found = overfitting(returns, n_stretches=n_stretches)

    assert (found.pbo, found.loss_probability) == by_hand(returns, n_stretches)


def test_the_best_of_noise_is_a_coin_elsewhere():
    rng = np.random.default_rng(0)
    found = [overfitting(rng.normal(size=(400, 10))) for _ in range(60)]

    assert np.mean([f.pbo for f in found]) == pytest.approx(0.5, abs=0.1)
    assert np.mean([f.loss_probability for f in found]) == pytest.approx(0.5, abs=0.1)


def test_one_with_skill_stays_the_best():
    returns = np.random.default_rng(1).normal(size=(400, 10))
    returns[:, 3] += 1.0

    found = overfitting(returns)

    assert (found.pbo, found.loss_probability) == (0.0, 0.0)
    assert (found.n_combinations, found.n_configurations) == (70, 10)


def test_equals_are_ranked_in_the_middle():
    same = np.tile(np.random.default_rng(2).normal(1.0, 1.0, 100)[:, None], 4)

    found = overfitting(same)

    assert (found.pbo, found.loss_probability) == (1.0, 0.0)


def test_configurations_that_never_trade_are_no_crash():
    found = overfitting(np.zeros((100, 3)))

    assert found.loss_probability == 0.0


@pytest.mark.parametrize("shape", [(100, 1), (15, 5), (0, 5)])
def test_too_little_to_tell_is_none(shape):
    assert overfitting(np.ones(shape)) is None
