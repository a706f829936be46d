"""Ridge regression against its normal equations and on rows with nothing in them."""

import numpy as np

from trademl.train.ridge import PENALTIES, fit_ridge


def rows(n, seed, noise=0.1):
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (n, 4))
    return x, x @ [1.0, -2.0, 0.0, 0.5] + 7 + rng.normal(0, noise, n)


def test_planted_weights_are_found():
    model = fit_ridge(*rows(2_000, 0), *rows(500, 1), penalties=[1e-9])

    x, y = rows(200, 2, noise=0)
    np.testing.assert_allclose(model.predict(x), y, atol=0.03)
    assert model.validation_gain > 0.99


def test_the_penalty_is_that_of_the_textbook():
    x, y = rows(50, 3)
    model = fit_ridge(x, y, x, y, penalties=[0.5])

    # least squares on rows stacked with sqrt(n * penalty) times the identity is the same problem
    z = (x - x.mean(0)) / x.std(0)
    stacked = np.vstack([z, np.sqrt(50 * 0.5) * np.eye(4)])
    expected = np.linalg.lstsq(stacked, np.concatenate([y - y.mean(), np.zeros(4)]), rcond=None)[0]
    np.testing.assert_allclose(model.weight_D, expected)


def test_noise_gets_a_large_penalty_and_no_gain():
    rng = np.random.default_rng(4)
    x, y, x2, y2 = (
        rng.normal(size=(300, 40)),
        rng.normal(size=300),
        rng.normal(size=(300, 40)),
        rng.normal(size=300),
    )

    model = fit_ridge(x, y, x2, y2)

    assert model.penalty >= PENALTIES[-2]
    assert model.validation_gain < 0.01


def test_a_feature_that_never_changes_has_no_say():
    x, y = rows(100, 5)
    x[:, 2] = 4.0

    model = fit_ridge(x, y, x, y)

    assert model.weight_D[2] == 0
    assert np.isfinite(model.predict(x)).all()
