"""Sharpe ratios against the examples of the papers that they come from."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.stats.sharpe import (
    SharpeRatio,
    deflated_sharpe_ratio,
    expected_maximum,
    minimum_track_record,
    probabilistic_sharpe_ratio,
    sharpe_ratio,
)

# Bailey and Lopez de Prado (2014), "A numerical example": an annualised ratio of 2.5 over 1250 days
# (250 a year), skew -3, kurtosis 10, the variance over trials 1/2 a year
PAPER = SharpeRatio(2.5 / np.sqrt(250), 1250, skew=-3.0, kurtosis=10.0)
VARIANCE = 0.5 / 250


@pytest.mark.parametrize(("n_trials", "deflated"), [(100, 0.9004), (46, 0.9505)])
def test_the_papers_deflated_ratios(n_trials, deflated):
    found = deflated_sharpe_ratio(PAPER, n_trials, variance=VARIANCE)

    assert found == pytest.approx(deflated, abs=1e-4)


def test_the_papers_expected_maximum():
    assert expected_maximum(100, variance=VARIANCE) == pytest.approx(0.1132, abs=5e-5)


def test_the_best_of_many_draws_is_as_good_as_expected():
    drawn = np.random.default_rng(0).normal(size=(20_000, 50)).max(axis=1).mean()

    assert expected_maximum(50, variance=1.0) == pytest.approx(drawn, rel=0.02)


def test_one_trial_is_not_deflated():
    assert expected_maximum(1, variance=1.0) == 0.0
    assert deflated_sharpe_ratio(PAPER, 1) == probabilistic_sharpe_ratio(PAPER)


@pytest.mark.parametrize(("per_year", "years"), [(252, 2.73), (52, 2.83), (12, 3.24)])
def test_the_papers_track_records(per_year, years):
    # Bailey and Lopez de Prado (2012): an annualised ratio of 2 against 1, normal returns, 95 %
    found = SharpeRatio(2 / np.sqrt(per_year), n=1)

    length = minimum_track_record(found, 1 / np.sqrt(per_year), confidence=0.95)

    assert length / per_year == pytest.approx(years, abs=0.01)


def test_a_track_record_of_that_length_is_as_sure_as_asked():
    length = minimum_track_record(PAPER, 0.1, confidence=0.97)
    found = SharpeRatio(PAPER.ratio, length, PAPER.skew, PAPER.kurtosis)

    assert probabilistic_sharpe_ratio(found, 0.1) == pytest.approx(0.97)


def test_no_length_proves_a_ratio_below_the_benchmark():
    assert minimum_track_record(PAPER, 0.2, confidence=0.95) is None


def test_moments_of_two_values_by_hand():
    # 3 wins of 1, 1 loss of 1: mean 1/2, variance 3/4, skew (1 - 2p) / sqrt(p q), kurtosis 1 + skew^2
    found = sharpe_ratio(np.array([1.0, 1.0, 1.0, -1.0]))

    assert found.ratio == pytest.approx(0.5 / np.sqrt(0.75))
    assert found.skew == pytest.approx(-0.5 / np.sqrt(0.1875))
    assert found.kurtosis == pytest.approx(1 + 0.25 / 0.1875)
    assert found.n == 4


def test_overlap_makes_the_same_returns_less_sure():
    returns = np.random.default_rng(1).normal(0.1, 1.0, 400)

    alone, shared = sharpe_ratio(returns), sharpe_ratio(returns, n=40.0)

    assert probabilistic_sharpe_ratio(shared) < probabilistic_sharpe_ratio(alone)


@pytest.mark.parametrize("returns", [[], [1.0], [2.0, 2.0, 2.0]])
def test_nothing_that_varies_gives_no_ratio(returns):
    assert sharpe_ratio(np.array(returns)) is None


def test_one_observation_proves_nothing():
    assert deflated_sharpe_ratio(SharpeRatio(9.0, n=1.0), 2) == 0.0
