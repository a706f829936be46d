"""One pass over training rows for many linear models at once, compiled.

Shape letters: N rows, P columns (features, a column of ones for the bias, zeros up to a multiple of
16), M models, K = M x outputs of each, B rows of a block.

Each element of a product is summed in one order that depends on nothing but its own row and its own
weights (`vector`), so a model's bits are the same whatever trains beside it and on however many
threads. Everything compiled lies in this file, since numba's cache on disk knows a file by itself
alone: after a change of `vector`, touch it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.train.vector import decay8, fma8, load8, splat8, store8, sum8, zero8

COLUMNS = 16  # P is a multiple of it
BLOCK = 48  # rows worked on while they are in the cache; a multiple of 3 and of 8
EPSILON = np.float32(1e-8)

LOSS_CODES = {
    "logistic": 0,
    "hinge_loss": 1,
    "softmax_loss": 2,
    "squared_loss": 3,
    "absolute_loss": 4,
    "eps_insensitive_squared_loss": 5,
    "eps_insensitive_absolute_loss": 6,
    "quantile_loss": 7,
    "huber_loss": 8,
}
OPTIMIZER_CODES = {"adam": 0, "sgd": 1, "rmsprop": 2}
# What one model is trained with: `engine` fills it from hyperparameters.
SETTINGS = np.dtype(
    [
        ("loss", np.int64),
        ("shape", np.float64),  # margin, quantile, delta or insensitivity of the loss
        ("optimizer", np.int64),
        ("rate", np.float64),
        ("factor", np.float64),
        ("step", np.int64),  # 0: the rate stays
        ("floor", np.float64),
        ("l1", np.float32),
        ("l2", np.float32),
        ("bias_at", np.int64),  # column of the bias
        ("bias_rate", np.float64),  # multiplies the rate; 0 where there is no bias
        ("bias_l2", np.float32),
        ("decay_1", np.float64),  # beta_1, or momentum
        ("decay_2", np.float64),
    ]
)
compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def run_batches(
    rows: tuple[NDArray[Any], ...],
    order_N: NDArray[np.int64],
    batch: int,
    n_outputs: int,
    models: tuple[NDArray[Any], ...],
    n_steps: int,
) -> int:
    """Take one step per mini batch for every model, in place; return the steps taken so far.

    Parameters
    ----------
    rows : tuple
        x_NP and target_N float32, group_N int64: which weight of the loss a row has.
    order_N : ndarray of int64
        Rows to read, in this order.
    models : tuple
        settings_M (`SETTINGS`), weight_MG float32 (weight of the loss per group), theta_KP,
        first_KP and second_KP float32 (weights, moments) and loss_M float64, to which the plain
        losses of the rows are added: every row weighs 1, penalties are left out.
    """
    settings_M, weight_MG, theta_KP, first_KP, second_KP, loss_M = models
    gradient_KP = np.empty_like(theta_KP)
    for start in range(0, len(order_N), batch):
        rows_N = order_N[start : min(start + batch, len(order_N))]
        gradient_KP[:] = np.float32(0.0)
        add_gradients(
            rows,
            rows_N,
            len(rows_N),
            n_outputs,
            (settings_M, weight_MG, theta_KP, loss_M),
            gradient_KP,
        )
        for k in range(len(theta_KP)):
            _update(
                settings_M[k // n_outputs],
                gradient_KP[k],
                theta_KP[k],
                first_KP[k],
                second_KP[k],
                n_steps,
            )
        n_steps += 1
    return n_steps


@compiled
def add_gradients(
    rows: tuple[NDArray[Any], ...],
    rows_N: NDArray[np.int64],
    n_batch: int,
    n_outputs: int,
    models: tuple[NDArray[Any], ...],
    gradient_KP: NDArray[np.float32],
) -> None:
    """Add to ``gradient_KP`` what some of a batch's ``n_batch`` rows contribute, without penalties.

    ``rows`` and ``models`` (without the moments) are those of `run_batches`.
    """
    x_NP, target_N, group_N = rows
    settings_M, weight_MG, theta_KP, loss_M = models
    z_KB = np.zeros((len(theta_KP), BLOCK), np.float32)
    for at in range(0, len(rows_N), BLOCK):
        rows_B = rows_N[at : min(at + BLOCK, len(rows_N))]
        forward(x_NP, rows_B, theta_KP, z_KB)
        for m in range(len(settings_M)):
            z_CB = z_KB[m * n_outputs : (m + 1) * n_outputs]
            loss_M[m] += _residuals(
                settings_M[m], weight_MG[m], target_N, group_N, rows_B, z_CB, n_batch
            )
        backward(x_NP, rows_B, z_KB, gradient_KP)


@compiled
def logits(x_NP: NDArray[Any], theta_KP: NDArray[Any], start: int, out_KN: NDArray[Any]) -> None:
    """Fill ``out_KN`` with the products of rows from ``start`` on and weights."""
    z_KB = np.zeros((len(theta_KP), BLOCK), np.float32)
    for at in range(0, out_KN.shape[1], BLOCK):
        n = min(BLOCK, out_KN.shape[1] - at)
        forward(x_NP, np.arange(start + at, start + at + n), theta_KP, z_KB)
        out_KN[:, at : at + n] = z_KB[:, :n]


@compiled
def standardise(
    features_ND: NDArray[Any],
    rows_N: NDArray[np.int64],
    mean_D: NDArray[np.float64],
    scale_D: NDArray[np.float64],
    out_NP: NDArray[np.float32],
) -> None:
    """Fill ``out_NP`` with chosen rows, normalised in float64 and rounded once, and ones."""
    width = len(mean_D)
    for n in range(len(rows_N)):
        for d in range(width):
            out_NP[n, d] = np.float32((features_ND[rows_N[n], d] - mean_D[d]) / scale_D[d])
        out_NP[n, width] = np.float32(1.0)
        out_NP[n, width + 1 :] = np.float32(0.0)


@compiled
def forward(
    x_NP: NDArray[Any], rows_B: NDArray[np.int64], theta_KP: NDArray[Any], z_KB: NDArray[Any]
) -> None:
    """Fill ``z_KB`` with x . theta: lane by lane of eight over the columns, then the lanes' sum.

    Three rows and four models share the registers; a last row is worked on twice where need be.
    """
    n, n_models, width = len(rows_B), theta_KP.shape[0], theta_KP.shape[1]
    for b0 in range(0, n, 3):
        b1, b2 = min(b0 + 1, n - 1), min(b0 + 2, n - 1)
        r0, r1, r2 = rows_B[b0], rows_B[b1], rows_B[b2]
        k = 0
        while k + 4 <= n_models:
            s00 = s01 = s02 = s03 = zero8()
            s10 = s11 = s12 = s13 = zero8()
            s20 = s21 = s22 = s23 = zero8()
            for p in range(0, width, 8):
                x0, x1, x2 = load8(x_NP, r0, p), load8(x_NP, r1, p), load8(x_NP, r2, p)
                w = load8(theta_KP, k, p)
                s00, s10, s20 = fma8(x0, w, s00), fma8(x1, w, s10), fma8(x2, w, s20)
                w = load8(theta_KP, k + 1, p)
                s01, s11, s21 = fma8(x0, w, s01), fma8(x1, w, s11), fma8(x2, w, s21)
                w = load8(theta_KP, k + 2, p)
                s02, s12, s22 = fma8(x0, w, s02), fma8(x1, w, s12), fma8(x2, w, s22)
                w = load8(theta_KP, k + 3, p)
                s03, s13, s23 = fma8(x0, w, s03), fma8(x1, w, s13), fma8(x2, w, s23)
            z_KB[k, b0], z_KB[k, b1], z_KB[k, b2] = sum8(s00), sum8(s10), sum8(s20)
            z_KB[k + 1, b0], z_KB[k + 1, b1], z_KB[k + 1, b2] = sum8(s01), sum8(s11), sum8(s21)
            z_KB[k + 2, b0], z_KB[k + 2, b1], z_KB[k + 2, b2] = sum8(s02), sum8(s12), sum8(s22)
            z_KB[k + 3, b0], z_KB[k + 3, b1], z_KB[k + 3, b2] = sum8(s03), sum8(s13), sum8(s23)
            k += 4
        while k < n_models:
            s0 = s1 = s2 = zero8()
            for p in range(0, width, 8):
                w = load8(theta_KP, k, p)
                s0 = fma8(load8(x_NP, r0, p), w, s0)
                s1 = fma8(load8(x_NP, r1, p), w, s1)
                s2 = fma8(load8(x_NP, r2, p), w, s2)
            z_KB[k, b0], z_KB[k, b1], z_KB[k, b2] = sum8(s0), sum8(s1), sum8(s2)
            k += 1


@compiled
def backward(
    x_NP: NDArray[Any],
    rows_B: NDArray[np.int64],
    residual_KB: NDArray[Any],
    gradient_KP: NDArray[Any],
) -> None:
    """Add residual . x to the gradient, row by row: sixteen columns of four models at a time."""
    n_models, width = gradient_KP.shape
    for p in range(0, width, COLUMNS):
        q = p + 8
        k = 0
        while k + 4 <= n_models:
            g0, h0 = load8(gradient_KP, k, p), load8(gradient_KP, k, q)
            g1, h1 = load8(gradient_KP, k + 1, p), load8(gradient_KP, k + 1, q)
            g2, h2 = load8(gradient_KP, k + 2, p), load8(gradient_KP, k + 2, q)
            g3, h3 = load8(gradient_KP, k + 3, p), load8(gradient_KP, k + 3, q)
            for b in range(len(rows_B)):
                x, y = load8(x_NP, rows_B[b], p), load8(x_NP, rows_B[b], q)
                r = splat8(residual_KB[k, b])
                g0, h0 = fma8(r, x, g0), fma8(r, y, h0)
                r = splat8(residual_KB[k + 1, b])
                g1, h1 = fma8(r, x, g1), fma8(r, y, h1)
                r = splat8(residual_KB[k + 2, b])
                g2, h2 = fma8(r, x, g2), fma8(r, y, h2)
                r = splat8(residual_KB[k + 3, b])
                g3, h3 = fma8(r, x, g3), fma8(r, y, h3)
            store8(gradient_KP, k, p, g0)
            store8(gradient_KP, k, q, h0)
            store8(gradient_KP, k + 1, p, g1)
            store8(gradient_KP, k + 1, q, h1)
            store8(gradient_KP, k + 2, p, g2)
            store8(gradient_KP, k + 2, q, h2)
            store8(gradient_KP, k + 3, p, g3)
            store8(gradient_KP, k + 3, q, h3)
            k += 4
        while k < n_models:
            g0, h0 = load8(gradient_KP, k, p), load8(gradient_KP, k, q)
            for b in range(len(rows_B)):
                r = splat8(residual_KB[k, b])
                g0 = fma8(r, load8(x_NP, rows_B[b], p), g0)
                h0 = fma8(r, load8(x_NP, rows_B[b], q), h0)
            store8(gradient_KP, k, p, g0)
            store8(gradient_KP, k, q, h0)
            k += 1


@compiled
def _residuals(settings, weight_G, target_N, group_N, rows_B, z_CB, n_batch):  # type: ignore[no-untyped-def]
    """Turn scores into derivatives of the batch's weighted mean loss; return the plain losses."""
    if settings.loss == 0:
        return _logistic(weight_G, target_N, group_N, rows_B, z_CB, n_batch)
    total = 0.0
    for b in range(len(rows_B)):
        row = rows_B[b]
        weight = weight_G[group_N[row]] / n_batch
        if settings.loss == 2:
            total += _softmax(z_CB[:, b], int(target_N[row]), weight)
        else:
            loss, slope = point_loss(settings.loss, settings.shape, z_CB[0, b], target_N[row])
            z_CB[0, b] = slope * weight
            total += loss
    return total


@compiled
def _logistic(weight_G, target_N, group_N, rows_B, z_CB, n_batch):  # type: ignore[no-untyped-def]
    """As `_residuals`, for the logistic loss. One logarithm serves a block: its sum is a product.

    loss = max(z, 0) - y z + log(1 + decay) with decay = exp(-|z|), and BLOCK factors below 2.
    """
    one, share = np.float32(1.0), np.float32(1.0) / np.float32(n_batch)
    decay_1B = np.empty((1, BLOCK), np.float32)
    for b in range(0, len(rows_B), 8):
        store8(decay_1B, 0, b, decay8(load8(z_CB, 0, b)))
    linear, product = 0.0, 1.0
    for b in range(len(rows_B)):
        row = rows_B[b]
        z, y, decay = z_CB[0, b], target_N[row], decay_1B[0, b]
        above = one / (one + decay)  # the likelier of both probabilities
        chance = above if z >= 0 else decay * above
        z_CB[0, b] = (chance - y) * weight_G[group_N[row]] * share
        linear += max(z, np.float32(0.0)) - z * y
        product *= 1.0 + decay
    return linear + math.log(product)


@compiled
def _softmax(z_C, label, weight):  # type: ignore[no-untyped-def]
    """Turn one row's scores into derivatives of its weighted loss; return its plain loss."""
    largest = z_C[0]
    for c in range(1, len(z_C)):
        largest = max(largest, z_C[c])
    total = 0.0
    for c in range(len(z_C)):
        total += math.exp(z_C[c] - largest)
    loss = math.log(total) + largest - z_C[label]
    for c in range(len(z_C)):
        chance = math.exp(z_C[c] - largest) / total
        z_C[c] = (chance - (1.0 if c == label else 0.0)) * weight
    return loss


@compiled
def point_loss(loss, shape, z, y):  # type: ignore[no-untyped-def]
    """Return a row's loss and its derivative by the score ``z``; at a corner the derivative is 0.

    Quantile (Koenker and Bassett, 1978): a label above the score costs ``quantile``, one below it
    ``1 - quantile``, so that the share ``quantile`` of labels ends up below.
    """
    if loss == 1:  # hinge: the label is a side, -1 or 1
        side = 2.0 * y - 1.0
        lack = shape - side * z
        return (lack, -side) if lack > 0.0 else (0.0, 0.0)
    error = z - y
    size, sign = abs(error), math.copysign(1.0, error) if error != 0.0 else 0.0
    if loss == 3:
        return error * error, 2.0 * error
    if loss == 4:
        return size, sign
    if loss == 5:
        excess = max(size - shape, 0.0)
        return excess * excess, 2.0 * excess * sign
    if loss == 6:
        return (size - shape, sign) if size > shape else (0.0, 0.0)
    if loss == 7:
        cost = 1.0 - shape if error > 0.0 else shape
        return cost * size, cost * sign
    if size > shape:  # huber
        return size - 0.5 * shape, sign
    return (0.5 * error * error / shape, error / shape) if shape > 0.0 else (0.0, 0.0)


@compiled
def learning_rate_at(settings, n_steps):  # type: ignore[no-untyped-def]
    """Return the learning rate after ``n_steps`` steps; the schedule's floor never raises it."""
    if settings.step == 0:
        return settings.rate
    lowered = settings.rate * settings.factor ** (n_steps // settings.step)
    return max(lowered, min(settings.floor, settings.rate))


@compiled
def _update(settings, gradient_P, theta_P, first_P, second_P, n_steps):  # type: ignore[no-untyped-def]
    """Move one model's weights once; the bias has a rate and an L2 of its own, and no L1."""
    rate, at = learning_rate_at(settings, n_steps), settings.bias_at
    state = gradient_P[:at], theta_P[:at], first_P[:at], second_P[:at]
    _move(settings, rate, settings.l1, settings.l2, n_steps, state)
    end = at + 1
    state = gradient_P[at:end], theta_P[at:end], first_P[at:end], second_P[at:end]
    _move(settings, rate * settings.bias_rate, np.float32(0.0), settings.bias_l2, n_steps, state)


@compiled
def _move(settings, rate, l1, l2, n_steps, state):  # type: ignore[no-untyped-def]
    """Step down the loss and its L2, then shrink by L1: the proximal step in the step's own metric.

    Adam: Kingma and Ba (2015), algorithm 1. RMSprop: Tieleman and Hinton (2012). L1: Yun, Lozano
    and Yang (2021). Unlike the sign of a weight the proximal step is continuous, and gives zeros.
    """
    gradient_P, theta_P, first_P, second_P = state
    one, rate, keep = np.float32(1.0), np.float32(rate), np.float32(settings.decay_1)
    if settings.optimizer == 1:
        l1_rate = rate * l1 / (one - keep)  # what momentum makes of a rate in the long run
        for p in range(len(theta_P)):
            gradient = gradient_P[p] + l2 * theta_P[p]
            first_P[p] = keep * first_P[p] - rate * gradient
            theta_P[p] = _shrink(theta_P[p] + first_P[p], l1_rate)
        return
    keep_2 = np.float32(settings.decay_2)
    grow_1 = np.float32(1.0 / (1.0 - settings.decay_1 ** (n_steps + 1)))
    grow_2 = np.float32(1.0 / math.sqrt(1.0 - settings.decay_2 ** (n_steps + 1)))
    if settings.optimizer == 2:
        keep, grow_1, grow_2 = np.float32(0.0), one, one
    for p in range(len(theta_P)):
        gradient = gradient_P[p] + l2 * theta_P[p]
        first_P[p] = keep * first_P[p] + (one - keep) * gradient
        second_P[p] = keep_2 * second_P[p] + (one - keep_2) * gradient * gradient
        pace = rate / (np.sqrt(second_P[p]) * grow_2 + EPSILON)
        theta_P[p] = _shrink(theta_P[p] - pace * grow_1 * first_P[p], pace * l1)


@compiled
def _shrink(weight, by):  # type: ignore[no-untyped-def]
    """Return a weight moved towards zero, and zero where it would pass it."""
    nothing = np.float32(0.0)
    return max(weight - by, nothing) + min(weight + by, nothing)
