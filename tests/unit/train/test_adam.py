"""The hand-written gradient and step, against torch's own differentiation and optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trademl.train.adam import (
    AdamState,
    adam_step,
    learning_rate_at,
    loss_gradient,
    make_penalty,
    start_state,
)
from trademl.train.hyperparameters import LinearLearnerParameters


def read(**values):
    return LinearLearnerParameters.from_strings({"predictor_type": "binary_classifier", **values})


def batch(seed=0, n=50, d=6):
    rng = np.random.default_rng(seed)
    label = torch.tensor(rng.integers(0, 2, n), dtype=torch.float32)
    weight = torch.where(label > 0.5, 7.5, 1.0)
    return torch.tensor(rng.normal(size=(n, d)), dtype=torch.float32), label, weight


def theta(seed=1, d=6):
    drawn = np.random.default_rng(seed).normal(size=d + 1)
    drawn[2] = 0.0  # where the L1 part has a corner
    return torch.tensor(drawn, dtype=torch.float32)


def differentiate(theta_P, parameters):
    """Return the gradient by autograd of the loss that the docstring states."""
    features, label, weight = batch()
    leaf = theta_P.clone().requires_grad_(True)
    logit = features @ leaf[:-1] + leaf[-1]
    data = torch.nn.functional.binary_cross_entropy_with_logits(logit, label, weight=weight)
    l2 = parameters.wd / 2 * (leaf[:-1].square().sum() + parameters.bias_wd_mult * leaf[-1] ** 2)
    (data + l2 + parameters.l1 * leaf[:-1].abs().sum()).backward()
    return leaf.grad


@pytest.mark.parametrize(
    "values",
    [
        {"l1": "0", "wd": "0"},
        {"l1": "0.3", "wd": "0"},
        {"l1": "0.05", "wd": "0.4", "bias_wd_mult": "2"},
    ],
)
def test_gradient_is_the_derivative_of_the_stated_loss(values):
    parameters = read(**values)

    found, _ = loss_gradient(theta(), *batch(), make_penalty(6, parameters))

    torch.testing.assert_close(found, differentiate(theta(), parameters), rtol=1e-5, atol=1e-6)


def test_plain_losses_weigh_every_row_one():
    features, label, weight = batch()
    logit = features @ theta()[:-1] + theta()[-1]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, label, reduction="sum")

    _, losses = loss_gradient(theta(), features, label, weight, make_penalty(6, read(l1="1")))

    torch.testing.assert_close(losses.float(), expected)


def test_steps_are_those_of_torch_adam():
    parameters = read(learning_rate="0.03", beta_2="0.99", wd="0", use_lr_scheduler="false")
    penalty = make_penalty(6, parameters)
    state = AdamState(theta(), torch.zeros(7), torch.zeros(7))
    peer = theta().requires_grad_(True)
    optimizer = torch.optim.Adam([peer], lr=0.03, betas=(0.9, 0.99), eps=1e-8)

    for seed in range(5):
        gradient, _ = loss_gradient(state.theta_P, *batch(seed), penalty)
        adam_step(state, gradient, penalty, parameters)
        peer.grad, _ = loss_gradient(peer.detach(), *batch(seed), penalty)
        optimizer.step()

    torch.testing.assert_close(state.theta_P, peer.detach(), rtol=1e-5, atol=1e-6)


def test_a_bias_not_in_use_stays_at_zero():
    parameters = read(use_bias="false", init_bias="3")
    penalty, state = make_penalty(6, parameters), start_state(6, parameters, seed=0)

    gradient, _ = loss_gradient(state.theta_P, *batch(), penalty)
    adam_step(state, gradient, penalty, parameters)

    assert state.theta_P[-1] == 0.0
    assert (state.theta_P[:-1] != start_state(6, parameters, seed=0).theta_P[:-1]).all()


def test_the_bias_has_its_own_learning_rate():
    moved = {}
    for mult in ("1", "10"):
        parameters = read(bias_lr_mult=mult, init_bias="0")
        penalty, state = make_penalty(6, parameters), start_state(6, parameters, seed=0)
        gradient, _ = loss_gradient(state.theta_P, *batch(), penalty)
        adam_step(state, gradient, penalty, parameters)
        moved[mult] = state.theta_P.clone()

    torch.testing.assert_close(moved["10"][-1], 10 * moved["1"][-1])
    torch.testing.assert_close(moved["10"][:-1], moved["1"][:-1])


def test_the_rate_falls_in_steps_to_its_floor():
    parameters = read(
        learning_rate="0.1",
        lr_scheduler_step="10",
        lr_scheduler_factor="0.5",
        lr_scheduler_minimum_lr="0.03",
    )

    rates = [learning_rate_at(n, parameters) for n in (0, 9, 10, 20, 1000)]

    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.03, 0.03])


def test_the_floor_never_raises_the_rate():
    assert learning_rate_at(500, read(learning_rate="1e-7")) == 1e-7


def test_weights_start_within_the_scale_and_the_bias_at_its_value():
    state = start_state(5000, read(init_scale="0.02", init_bias="0.5"), seed=3)

    assert 0.0199 < state.theta_P[:-1].abs().max() <= 0.02
    assert state.theta_P[-1] == 0.5
    normal = start_state(5000, read(init_method="normal", init_sigma="0.3"), seed=3).theta_P[:-1]
    assert float(normal.std()) == pytest.approx(0.3, rel=0.05)
