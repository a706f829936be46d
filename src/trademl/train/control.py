"""The honest control of Linear Learner: logistic regression with plain L2, solved to its optimum.

Shape letters: N rows, P columns with the bias and zeros.

A stochastic search that ends with a larger loss on the same training rows has not converged.
L-BFGS with a memory of ten steps and a backtracking line search (Nocedal and Wright, 2006,
algorithms 7.4 and 3.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from trademl.errors import ConfigError, TrainError
from trademl.etl.dataset import Split
from trademl.train.engine import Models, Rows, Threads
from trademl.train.finish import TrainedModel, finish
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.kernels import add_gradients
from trademl.train.linear_learner import SILENT, prepare

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]
_PARTS = 16  # of the rows, summed in their order: the same sum on any number of threads
_MEMORY = 10
_SUFFICIENT = 1e-4  # share of the slope that a step must gain (Armijo)


def fit_control(
    train: Split,
    validation: Split | None,
    parameters: LinearLearnerParameters,
    *,
    seed: int,
    columns: Sequence[str] = (),
    test: Split | None = None,
) -> TrainedModel:
    """Train by L-BFGS what `fit` approaches step by step, calibrated and measured the same way.

    Parameters
    ----------
    parameters : LinearLearnerParameters
        Of a binary classifier with the logistic loss, ``l1`` 0 and every row weighing 1; what
        steers steps and epochs is passed over.

    Raises
    ------
    ConfigError
        If the hyperparameters ask for another problem.
    DataError
        As `fit`.
    TrainError
        If the optimum is not reached.
    """
    wanted = {"loss": "logistic", "l1": 0.0, "positive_example_weight_mult": 1.0}
    for name, value in wanted.items():
        if (found := getattr(parameters, name)) != value:
            raise ConfigError(f"{name} is {found}, the control by L-BFGS expects {value}")
    with Threads() as threads:
        training, splits, names = prepare(
            train, validation, [parameters], SILENT, threads, columns=columns, test=test, seed=seed
        )
        theta_P, loss = solve(training.models, training.rows, parameters, threads)
        (runner, *_) = training.runners
        theta_CP = theta_P.astype(np.float32)[None, :]
        found = training.judge(runner, training.scores(theta_CP))
        training.runners = [runner]
        runner.look(0, found, loss, theta_CP)
        trained = finish(training, 0, splits, names)
    if isinstance(trained, TrainError):
        raise trained
    return trained


def solve(
    models: Models,
    rows: Rows,
    parameters: LinearLearnerParameters,
    threads: Threads,
    *,
    tolerance: float = 1e-4,
    most_steps: int = 1000,
) -> tuple[Floats, float]:
    """Return the weights at the optimum, float64 of shape (P,), and the mean loss of the rows.

    Parameters
    ----------
    models : Models
        Whose first model gives settings and start.
    tolerance : float
        Largest element of the gradient at which the optimum counts as reached.
    """
    bias_at = int(models.settings_M["bias_at"][0])
    l2_P = np.full(models.theta_KP.shape[1], parameters.wd)
    l2_P[bias_at] = parameters.wd * parameters.bias_wd_mult
    is_free_P = np.arange(len(l2_P)) < bias_at + parameters.use_bias

    def objective(theta_P: Floats) -> tuple[float, Floats]:
        loss, slope_P = _mean_loss(models, rows, theta_P, threads)
        return (
            loss + 0.5 * float(l2_P @ theta_P**2),
            np.where(is_free_P, slope_P + l2_P * theta_P, 0.0),
        )

    theta_P = np.zeros(len(l2_P))
    theta_P = minimise(objective, theta_P, tolerance=tolerance, most_steps=most_steps)
    return theta_P, _mean_loss(models, rows, theta_P, threads)[0]


def _mean_loss(
    models: Models, rows: Rows, theta_P: Floats, threads: Threads
) -> tuple[float, Floats]:
    n = len(rows.target_N)
    edges = np.linspace(0, n, _PARTS + 1).astype(int)
    order_N = np.arange(n)
    theta_KP = theta_P.astype(np.float32)[None, :]
    weight_MG = np.ones_like(models.weight_MG[:1])

    def part(i: int) -> tuple[float, Floats]:
        loss_M, gradient_KP = np.zeros(1), np.zeros_like(theta_KP)
        one = models.settings_M[:1], weight_MG, theta_KP, loss_M
        data = rows.x_NP, rows.target_N, rows.group_N
        add_gradients(data, order_N[edges[i] : edges[i + 1]], n, 1, one, gradient_KP)
        return float(loss_M[0]), gradient_KP[0].astype(np.float64)

    parts = threads.each(part, _PARTS)
    return sum(loss for loss, _ in parts) / n, np.sum([slope_P for _, slope_P in parts], axis=0)


def minimise(objective: Objective, start_P: Floats, *, tolerance: float, most_steps: int) -> Floats:
    """Return where a smooth convex function is smallest.

    Raises
    ------
    TrainError
        If ``most_steps`` do not bring every element of the gradient below ``tolerance``.
    """
    memory: deque[tuple[Floats, Floats]] = deque(maxlen=_MEMORY)
    theta_P, (value, slope_P) = start_P, objective(start_P)
    for _ in range(most_steps):
        if np.abs(slope_P).max() <= tolerance:
            return theta_P
        way_P = -_newton_direction(slope_P, memory)
        pace, descent = 1.0 if memory else min(1.0, 1.0 / np.abs(slope_P).sum()), way_P @ slope_P
        while True:
            step_P = pace * way_P
            new_value, new_slope_P = objective(theta_P + step_P)
            if new_value <= value + _SUFFICIENT * pace * descent or pace < 1e-10:
                break
            pace /= 2.0
        change_P = new_slope_P - slope_P
        if step_P @ change_P > 1e-12 * (change_P @ change_P):
            memory.append((step_P, change_P))
        theta_P, value, slope_P = theta_P + step_P, new_value, new_slope_P
    raise TrainError(
        f"the control's gradient is still {np.abs(slope_P).max():.2g} after {most_steps} steps, "
        f"expected {tolerance:g}: raise wd, or set normalize_data to true"
    )


def _newton_direction(slope_P: Floats, memory: deque[tuple[Floats, Floats]]) -> Floats:
    """Return the slope times the inverse curvature that the remembered steps tell."""
    way_P, shares = slope_P.copy(), []
    for step_P, change_P in reversed(memory):
        share = (step_P @ way_P) / (step_P @ change_P)
        way_P -= share * change_P
        shares.append(share)
    if memory:
        step_P, change_P = memory[-1]
        way_P *= (step_P @ change_P) / (change_P @ change_P)
    for (step_P, change_P), share in zip(memory, reversed(shares), strict=True):
        way_P += (share - (change_P @ way_P) / (step_P @ change_P)) * step_P
    return way_P
