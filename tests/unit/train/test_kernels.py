"""The compiled pass: products, derivatives and steps against numpy, differences and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numba import njit

from trademl.train.engine import settings_of
from trademl.train.hyperparameters import LOSSES, LinearLearnerParameters
from trademl.train.kernels import (
    BLOCK,
    COLUMNS,
    LOSS_CODES,
    SETTINGS,
    backward,
    forward,
    learning_rate_at,
    point_loss,
    run_batches,
)
from trademl.train.losses import row_losses
from trademl.train.scaler import LabelScaler
from trademl.train.vector import decay8, load8, store8

D, P = 5, COLUMNS
SHAPES = {
    "hinge_loss": 1.0,
    "quantile_loss": 0.3,
    "huber_loss": 0.7,
    "eps_insensitive_squared_loss": 0.2,
    "eps_insensitive_absolute_loss": 0.2,
}


def read(**values):
    return LinearLearnerParameters.from_strings({"predictor_type": "binary_classifier", **values})


def settings(**values):
    record = np.zeros(1, SETTINGS)
    record[0] = settings_of(read(**values), D, LabelScaler())
    return record


def draw_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    x = np.zeros((n, P), np.float32)
    x[:, :D], x[:, D] = rng.normal(size=(n, D)), 1.0
    label = rng.integers(0, 2, n)
    return x, label.astype(np.float32), label.astype(np.int64)


def start(seed=1, models=1):
    theta = np.zeros((models, P), np.float32)
    theta[:, : D + 1] = np.random.default_rng(seed).normal(size=(models, D + 1))
    return theta


def run(rows, theta, record, *, batch, weight=(1.0, 1.0), order=None, n_steps=0, moments=None):
    """Train in place, and return moments and the sum of plain losses."""
    moments = moments or (np.zeros_like(theta), np.zeros_like(theta))
    weights = np.tile(np.float32(weight), (len(record), 1))
    loss = np.zeros(len(record))
    order = np.arange(len(rows[1])) if order is None else order
    run_batches(rows, order, batch, 1, (record, weights, theta, *moments, loss), n_steps)
    return moments, loss


@pytest.mark.parametrize("n", [1, 2, 3, 47, BLOCK])
@pytest.mark.parametrize("models", [1, 3, 4, 9])
def test_products_are_those_of_numpy(n, models):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(60, 2 * COLUMNS)).astype(np.float32)
    theta = rng.normal(size=(models, 2 * COLUMNS)).astype(np.float32)
    rows, z = rng.permutation(60)[:n], np.zeros((models, BLOCK), np.float32)
    gradient = rng.normal(size=theta.shape).astype(np.float32)
    before = gradient.copy()

    forward(x, rows, theta, z)
    backward(x, rows, z, gradient)

    np.testing.assert_allclose(z[:, :n], theta @ x[rows].T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, before + z[:, :n] @ x[rows], rtol=1e-5, atol=1e-4)


def test_exponentials_are_exact_to_a_float32():
    x = np.linspace(-86.0, 86.0, 80_000, dtype=np.float32).reshape(1, -1)
    out = np.empty_like(x)

    @njit
    def fill(x, out):
        for at in range(0, x.shape[1], 8):
            store8(out, 0, at, decay8(load8(x, 0, at)))

    fill(x, out)

    np.testing.assert_allclose(out, np.exp(-np.abs(x.astype(np.float64))), rtol=2e-7)


def test_exponentials_beyond_float32_stay_finite():
    rows = draw_rows(8)
    theta = start() * np.float32(1e6)

    _, loss = run(rows, theta, settings(), batch=8)

    assert np.isfinite(theta).all()
    assert np.isfinite(loss).all()


@pytest.mark.parametrize("loss", ["hinge_loss", *LOSSES["regressor"]])
def test_derivatives_are_those_of_the_stated_losses(loss):
    shape, step = SHAPES.get(loss, 0.0), 1e-6
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 200).astype(float) if loss == "hinge_loss" else rng.normal(size=200)

    for y, z in zip(label, rng.normal(size=200), strict=True):
        found, slope = point_loss(LOSS_CODES[loss], shape, z, y)
        low, here, high = (
            row_losses(loss, shape, np.array([y]), np.array([[z + d]]))[0] for d in (-step, 0, step)
        )
        assert found == pytest.approx(here, abs=1e-12)
        assert slope == pytest.approx((high - low) / (2 * step), abs=1e-5)


@pytest.mark.parametrize("delta", [0.0, 1e-9])
def test_huber_without_a_delta_is_the_absolute_loss(delta):
    assert point_loss(LOSS_CODES["huber_loss"], delta, 3.0, 1.0) == pytest.approx((2.0, 1.0))
    assert point_loss(LOSS_CODES["huber_loss"], delta, 1.0, 1.0) == (0.0, 0.0)
    assert row_losses("huber_loss", 0.0, np.array([1.0]), np.array([[3.0]])) == [2.0]


def torch_steps(optimizer, rows, theta, *, batch, weight, wd):
    """Return the weights after torch has stepped through the rows once."""
    leaf = torch.tensor(theta[0, : D + 1], requires_grad=True)
    step = optimizer([leaf])
    x, label = torch.tensor(rows[0][:, : D + 1]), torch.tensor(rows[1])
    for at in range(0, len(label), batch):
        y = label[at : at + batch]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            x[at : at + batch] @ leaf, y, weight=torch.where(y > 0.5, weight, 1.0)
        )
        step.zero_grad()
        (loss + wd / 2 * leaf[:D].square().sum()).backward()
        step.step()
    return leaf.detach().numpy()


@pytest.mark.parametrize(
    ("values", "optimizer"),
    [
        (
            {"optimizer": "adam", "learning_rate": "0.03", "beta_2": "0.99"},
            lambda leaves: torch.optim.Adam(leaves, lr=0.03, betas=(0.9, 0.99)),
        ),
        (
            {"optimizer": "sgd", "learning_rate": "0.05", "momentum": "0.8"},
            lambda leaves: torch.optim.SGD(leaves, lr=0.05, momentum=0.8),
        ),
        (
            {"optimizer": "rmsprop", "learning_rate": "0.02"},
            lambda leaves: torch.optim.RMSprop(leaves, lr=0.02, alpha=0.9),
        ),
    ],
)
def test_steps_are_those_of_torch(values, optimizer):
    rows, theta = draw_rows(200), start()
    expected = torch_steps(optimizer, rows, theta, batch=30, weight=7.5, wd=0.4)

    run(
        rows,
        theta,
        settings(wd="0.4", use_lr_scheduler="false", **values),
        batch=30,
        weight=(1.0, 7.5),
    )

    np.testing.assert_allclose(theta[0, : D + 1], expected, rtol=2e-4, atol=2e-5)


def test_softmax_steps_are_those_of_torch():
    rng = np.random.default_rng(5)
    x, _, _ = draw_rows(90)
    label = rng.integers(0, 3, 90)
    theta = start(models=3)
    leaf = torch.tensor(theta[:, : D + 1], requires_grad=True)
    step = torch.optim.SGD([leaf], lr=0.1)
    share = torch.tensor([1.0, 2.0, 0.5])
    for at in range(0, 90, 30):
        rows = torch.tensor(x[at : at + 30, : D + 1]) @ leaf.T
        y = torch.tensor(label[at : at + 30])
        losses = torch.nn.functional.cross_entropy(rows, y, reduction="none")
        step.zero_grad()
        (losses * share[y]).mean().backward()
        step.step()
    record = settings(
        optimizer="sgd", momentum="0", learning_rate="0.1", wd="0", use_lr_scheduler="false"
    )
    record["loss"] = LOSS_CODES["softmax_loss"]
    weights, moments = np.array([[1.0, 2.0, 0.5]], np.float32), np.zeros((2, 3, P), np.float32)

    run_batches(
        (x, label.astype(np.float32), label),
        np.arange(90),
        30,
        3,
        (record, weights, theta, *moments, np.zeros(1)),
        0,
    )

    np.testing.assert_allclose(theta[:, : D + 1], leaf.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_plain_losses_weigh_every_row_one():
    rows, theta = draw_rows(100), start()
    expected = row_losses("logistic", 0.0, rows[1], theta @ rows[0].T).sum()

    _, loss = run(rows, theta, settings(l1="1"), batch=100, weight=(1.0, 50.0))

    assert loss[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_l1_ends_where_the_lasso_does(optimizer):
    # the optimum of mean loss + l1 |w|: a weight at zero has a slope of at most l1, any other one
    # a slope of exactly l1 against its sign
    l1, rows, theta = 0.06, draw_rows(400, seed=8), start() * np.float32(0.3)
    rows[1][:] = rows[0][:, 0] - 0.5 * rows[0][:, 1] > 0.0
    record = settings(
        l1=str(l1), wd="0", use_lr_scheduler="false", optimizer=optimizer, learning_rate="0.003"
    )
    moments = None
    for step in range(4000):
        moments, _ = run(rows, theta, record, batch=400, n_steps=step, moments=moments)

    w, x = theta[0, :D].astype(float), rows[0][:, : D + 1].astype(float)
    chance = 1.0 / (1.0 + np.exp(-(x @ theta[0, : D + 1])))
    slope = ((chance - rows[1]) @ x / 400)[:D]
    assert (w == 0.0).any()
    assert (w != 0.0).any()
    assert np.abs(slope[w == 0.0]).max() <= l1
    np.testing.assert_allclose(slope[w != 0.0], -l1 * np.sign(w[w != 0.0]), atol=2e-3)


def test_a_bias_not_in_use_stays_at_zero():
    rows, theta = draw_rows(100), start()
    theta[:, D] = 0.0

    run(rows, theta, settings(use_bias="false"), batch=10)

    assert theta[0, D] == 0.0


def test_the_bias_has_its_own_learning_rate():
    moved = []
    for mult in ("1", "10"):
        rows, theta = draw_rows(50), start()
        run(rows, theta, settings(bias_lr_mult=mult), batch=50)
        moved.append(theta - start())

    assert moved[1][0, D] == pytest.approx(10 * moved[0][0, D], rel=1e-4)
    np.testing.assert_array_equal(moved[1][0, :D], moved[0][0, :D])


def test_the_rate_falls_in_steps_to_its_floor():
    (record,) = settings(
        learning_rate="0.1",
        lr_scheduler_step="10",
        lr_scheduler_factor="0.5",
        lr_scheduler_minimum_lr="0.03",
    )

    rates = [learning_rate_at(record, n) for n in (0, 9, 10, 20, 1000)]

    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.03, 0.03])


def test_the_floor_never_raises_the_rate():
    (record,) = settings(learning_rate="1e-7")

    assert learning_rate_at(record, 500) == 1e-7


def test_a_model_has_the_same_bits_whatever_trains_beside_it():
    rows = draw_rows(500)
    record, theta = settings(l1="0.001", positive_example_weight_mult="1"), start(models=7)
    together = theta.copy()
    order = np.random.default_rng(2).permutation(500)
    run(rows, together, np.repeat(record, 7), batch=70, order=order)

    for m in range(7):
        alone = theta[m : m + 1].copy()
        run(rows, alone, record, batch=70, order=order)
        assert alone.tobytes() == together[m : m + 1].tobytes()
