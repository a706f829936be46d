"""The control by L-BFGS stands at the optimum, which training may approach and never beat."""

from __future__ import annotations

import numpy as np
import pytest

from trademl.errors import ConfigError, TrainError
from trademl.train.control import fit_control, minimise
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.linear_learner import fit


def read(**values):
    base = {"predictor_type": "binary_classifier", "wd": "0.01", "num_models": "1"}
    return LinearLearnerParameters.from_strings({**base, **values})


def test_a_quadratic_is_solved():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(30, 30))
    curvature, target = half @ half.T + np.eye(30), rng.normal(size=30)

    def objective(x):
        slope = curvature @ (x - target)
        return 0.5 * (x - target) @ slope, slope

    found = minimise(objective, np.zeros(30), tolerance=1e-8, most_steps=500)

    np.testing.assert_allclose(found, target, atol=1e-6)


@pytest.mark.parametrize("use_bias", ["true", "false"])
def test_the_gradient_of_the_stated_loss_is_zero_at_the_control(draw, use_bias):
    rows, parameters = draw(1), read(use_bias=use_bias)

    model = fit_control(rows, None, parameters, seed=0).model

    x = (rows.features_ND - model.mean_D) / model.scale_D
    residual = model.scores(rows.features_ND) - rows.label_N
    slope = residual @ x / len(rows) + 0.01 * model.weights_D
    assert np.abs(slope).max() < 2e-4
    assert abs(residual.mean()) < 2e-4 if use_bias == "true" else model.bias == 0.0


def test_training_comes_near_the_control_and_never_below(draw):
    def objective(trained):
        penalty = 0.005 * (trained.model.weights_D**2).sum()
        return trained.metrics["train:objective_loss"] + penalty

    best = objective(fit_control(draw(1), draw(2), read(), seed=0))
    trained = objective(
        fit(draw(1), None, read(epochs="60", learning_rate="0.02", mini_batch_size="100"), seed=0)
    )

    assert best <= trained + 1e-7
    assert trained < best + 0.003


@pytest.mark.parametrize(
    ("name", "value"),
    [("l1", "0.1"), ("loss", "hinge_loss"), ("positive_example_weight_mult", "2")],
)
def test_another_problem_is_refused(draw, name, value):
    with pytest.raises(ConfigError, match=f"{name} is .*, the control by L-BFGS expects"):
        fit_control(draw(1), None, read(**{name: value}), seed=0)


def test_no_optimum_is_an_error():
    with pytest.raises(TrainError, match="gradient is still 1 after 5 steps"):
        minimise(lambda x: (x.sum(), np.ones(3)), np.zeros(3), tolerance=1e-4, most_steps=5)
