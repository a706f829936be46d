"""Portfolio weights against closed forms and a search over a fine grid."""

import itertools

import numpy as np
import pytest

from trademl.backtest.weights import best_weights, shrunk_covariance


def value(w, expected, covariance, held, cost, risk):
    return w @ expected - risk / 2 * w @ covariance @ w - cost @ np.abs(w - held)


def test_one_asset_without_costs_is_the_textbook_share():
    # Merton's share: expected excess return over risk aversion times variance
    found = best_weights(
        np.array([0.02]), np.array([[0.04]]), np.zeros(1), np.zeros(1), risk_aversion=2
    )

    assert found == pytest.approx([0.25])


def test_a_gain_that_does_not_pay_for_the_trade_is_left():
    arguments = (np.array([[0.04]]), np.array([0.2]), np.array([0.01]))

    # marginal gain at 0.2 is e - 2 * 0.04 * 0.2 = e - 0.016
    assert best_weights(np.array([0.025]), *arguments, risk_aversion=2) == pytest.approx([0.2])
    assert best_weights(np.array([0.030]), *arguments, risk_aversion=2) == pytest.approx([0.25])
    assert best_weights(np.array([0.002]), *arguments, risk_aversion=2) == pytest.approx([0.15])


@pytest.mark.parametrize("seed", range(6))
def test_no_weights_of_a_fine_grid_are_better(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(3, 3)) * 0.1
    covariance = root @ root.T + 0.005 * np.eye(3)
    expected, cost = rng.normal(0.02, 0.03, 3), rng.random(3) * 0.01
    held = rng.dirichlet(np.ones(4))[:3]
    problem = (expected, covariance, held, cost)

    found = best_weights(*problem, risk_aversion=3, max_weight=0.6)

    assert (found >= 0).all()
    assert (found <= 0.6).all()
    assert found.sum() <= 1 + 1e-9
    grid = [
        np.array(w) for w in itertools.product(np.linspace(0, 0.6, 25), repeat=3) if sum(w) <= 1
    ]
    best = max(value(w, *problem, 3) for w in grid)
    assert value(found, *problem, 3) >= best - 1e-9


def test_an_asset_without_a_forecast_is_not_held():
    found = best_weights(
        np.array([np.nan, 0.05]),
        np.eye(2) * 0.04,
        np.array([0.5, 0.0]),
        np.zeros(2),
        risk_aversion=1,
    )

    assert found.tolist() == [0.0, 1.0]


def test_full_shrinkage_leaves_variances_alone():
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(500, 2)) @ np.array([[1, 0.9], [0, 0.4]])

    none, full = (shrunk_covariance(returns, periods=10, shrinkage=s) for s in (0.0, 1.0))

    np.testing.assert_allclose(none, np.cov(returns, rowvar=False) * 10)
    assert full[0, 1] == 0
    np.testing.assert_allclose(np.diag(full), np.diag(none) + 1e-8)
