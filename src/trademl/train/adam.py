"""One step of a regularised logistic regression under Adam, by hand on plain tensors.

Shape letters: B rows of a batch, D feature columns, P = D + 1 parameters, the bias last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trademl.train.determinism import Stream, generator
from trademl.train.hyperparameters import LinearLearnerParameters

_EPSILON = 1e-8


@dataclass
class AdamState:
    """Parameters and Adam's two moments, float32 of shape (P,), and the steps taken so far."""

    theta_P: Tensor
    first_P: Tensor
    second_P: Tensor
    n_steps: int = 0


@dataclass(frozen=True)
class Penalty:
    """Per parameter, shape (P,): multiplier of the learning rate, strength of L1 and of L2."""

    rate_P: Tensor
    l1_P: Tensor
    l2_P: Tensor


def start_state(n_features: int, parameters: LinearLearnerParameters, *, seed: int) -> AdamState:
    """Return the state before the first step: weights drawn, the bias at ``init_bias``."""
    rng = generator(seed, Stream.START)
    if parameters.init_method == "normal":
        weights_D = rng.normal(0.0, parameters.init_sigma, n_features)
    else:
        weights_D = rng.uniform(-parameters.init_scale, parameters.init_scale, n_features)
    bias = parameters.init_bias if parameters.use_bias else 0.0
    theta_P = torch.from_numpy(np.append(weights_D, bias).astype(np.float32))
    return AdamState(theta_P, torch.zeros_like(theta_P), torch.zeros_like(theta_P))


def make_penalty(n_features: int, parameters: LinearLearnerParameters) -> Penalty:
    """Return what each parameter pays: no L1 on the bias, and a bias not in use never moves."""
    size = (n_features + 1,)
    rate_P, l1_P = torch.ones(size), torch.full(size, parameters.l1)
    l2_P = torch.full(size, parameters.wd)
    rate_P[-1] = parameters.bias_lr_mult if parameters.use_bias else 0.0
    l1_P[-1] = 0.0
    l2_P[-1] = parameters.wd * parameters.bias_wd_mult
    return Penalty(rate_P, l1_P, l2_P)


def loss_gradient(
    theta_P: Tensor, features_BD: Tensor, label_B: Tensor, weight_B: Tensor, penalty: Penalty
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the regularised loss, and the sum of the rows' plain losses.

    The loss is ``mean(weight * logistic) + sum(l1 |theta| + l2 / 2 theta**2)``; the subgradient
    of the L1 part at zero is zero. The plain losses weigh every row 1 and pay no penalty.
    """
    logit_B = torch.mv(features_BD, theta_P[:-1]) + theta_P[-1]
    residual_B = (torch.sigmoid(logit_B) - label_B) * weight_B / len(label_B)
    slope_P = torch.cat([torch.mv(features_BD.T, residual_B), residual_B.sum().view(1)])
    gradient_P = slope_P + penalty.l1_P * theta_P.sign() + penalty.l2_P * theta_P
    plain_B = torch.nn.functional.softplus(logit_B) - label_B * logit_B
    return gradient_P, plain_B.sum(dtype=torch.float64)


def adam_step(
    state: AdamState, gradient_P: Tensor, penalty: Penalty, parameters: LinearLearnerParameters
) -> None:
    """Move the parameters once, in place (Kingma and Ba, 2015, algorithm 1)."""
    beta_1, beta_2 = parameters.beta_1, parameters.beta_2
    state.first_P.mul_(beta_1).add_(gradient_P, alpha=1.0 - beta_1)
    state.second_P.mul_(beta_2).addcmul_(gradient_P, gradient_P, value=1.0 - beta_2)
    rate = learning_rate_at(state.n_steps, parameters)
    state.n_steps += 1
    first_P = state.first_P / (1.0 - beta_1**state.n_steps)
    second_P = state.second_P / (1.0 - beta_2**state.n_steps)
    state.theta_P.addcdiv_(penalty.rate_P * first_P, second_P.sqrt() + _EPSILON, value=-rate)


def learning_rate_at(n_steps: int, parameters: LinearLearnerParameters) -> float:
    """Return the learning rate after ``n_steps`` steps; the scheduler's floor never raises it."""
    if not parameters.use_lr_scheduler:
        return parameters.learning_rate
    lowered = parameters.lr_scheduler_factor ** (n_steps // parameters.lr_scheduler_step)
    floor = min(parameters.lr_scheduler_minimum_lr, parameters.learning_rate)
    return max(parameters.learning_rate * lowered, floor)
