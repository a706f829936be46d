"""Many linear models trained over the same rows: their state, and passes on several threads.

Shape letters: N rows, D features, P columns, M models, K = M x outputs of each, V rows held out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trademl.train.determinism import Stream, generator
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.kernels import (
    COLUMNS,
    LOSS_CODES,
    OPTIMIZER_CODES,
    SETTINGS,
    logits,
    run_batches,
    standardise,
)
from trademl.train.members import Member
from trademl.train.scaler import LabelScaler, Scaler

Float32 = NDArray[np.float32]
T = TypeVar("T")
RMSPROP_DECAY = 0.9
_SHUFFLED_TOGETHER = 64  # rows that stay beside one another after the first shuffle, at most
_ROWS_BETWEEN_LOOKS = 65_536  # rows trained on before should_stop is asked again


@dataclass(frozen=True)
class Rows:
    """Normalised rows: x_NP with ones for the bias, targets as the loss takes them, groups."""

    x_NP: Float32
    target_N: Float32
    group_N: NDArray[np.int64]


class Threads:
    """As many threads as cores, for compiled work that lets go of the interpreter's lock."""

    def __init__(self, n: int | None = None) -> None:
        self.n = n or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self.n)

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def each(self, work: Callable[[int], T], size: int) -> list[T]:
        """Return ``work`` of each number below ``size``."""
        return list(self._pool.map(work, range(size)))

    def spread(self, work: Callable[[int, int], T], size: int) -> list[T]:
        """Return ``work(start, end)`` of consecutive parts of a range, one for each thread."""
        edges = np.linspace(0, size, min(self.n, max(size, 1)) + 1).astype(int).tolist()
        if len(edges) == 2:
            return [work(0, size)]
        return list(self._pool.map(work, edges[:-1], edges[1:]))


def normalised_rows(
    features_ND: NDArray[Any], rows_N: NDArray[np.int64], scaler: Scaler, threads: Threads
) -> Float32:
    """Return chosen rows as the kernels take them, float32 of shape (N, P)."""
    features_ND = np.ascontiguousarray(features_ND, dtype=np.float32)
    width = len(scaler.mean_D) + 1
    x_NP = np.empty((len(rows_N), -(-width // COLUMNS) * COLUMNS), np.float32)
    threads.spread(
        lambda a, b: standardise(
            features_ND, rows_N[a:b], scaler.mean_D, scaler.scale_D, x_NP[a:b]
        ),
        len(rows_N),
    )
    return x_NP


def row_order(n: int, epoch: int, *, seed: int) -> NDArray[np.int64]:
    """Return the order in which an epoch reads rows that were shuffled once.

    Runs of up to 64 neighbours stay together, so that memory is read in stretches; fewer where
    there are fewer than 65,536 rows. It depends on seed, epoch and ``n`` alone.
    """
    run = int(np.clip(n // 1024, 1, _SHUFFLED_TOGETHER))
    starts = generator(seed, Stream.SHUFFLE, epoch).permutation(-(-n // run)) * run
    order = (starts[:, None] + np.arange(run)).ravel()
    return order[order < n]


class Models:
    """The state of models in training; a model can leave without a change to the others."""

    def __init__(
        self,
        members: Sequence[Member],
        n_features: int,
        n_columns: int,
        label_scaler: LabelScaler,
        *,
        seed: int,
    ) -> None:
        self.n_outputs = outputs_of(members[0].parameters)
        self.settings_M = np.zeros(len(members), SETTINGS)
        for m, member in enumerate(members):
            self.settings_M[m] = settings_of(member.parameters, n_features, label_scaler)
        self.weight_MG = np.stack([member.group_weight_G for member in members])
        self.theta_KP = np.zeros((len(members) * self.n_outputs, n_columns), np.float32)
        for m, member in enumerate(members):
            own = slice(m * self.n_outputs, (m + 1) * self.n_outputs)
            self.theta_KP[own, : n_features + 1] = start_weights(
                member, n_features, self.n_outputs, seed=seed
            )
        self.first_KP = np.zeros_like(self.theta_KP)
        self.second_KP = np.zeros_like(self.theta_KP)
        self.n_steps = 0

    def __len__(self) -> int:
        return len(self.settings_M)

    def theta(self, m: int) -> Float32:
        """Return a model's weights, shape (outputs, P); a view."""
        return self.theta_KP[m * self.n_outputs : (m + 1) * self.n_outputs]

    def keep(self, is_kept_M: NDArray[np.bool_]) -> None:
        """Let the other models go."""
        is_kept_K = np.repeat(is_kept_M, self.n_outputs)
        self.settings_M, self.weight_MG = self.settings_M[is_kept_M], self.weight_MG[is_kept_M]
        for name in ("theta_KP", "first_KP", "second_KP"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[is_kept_K]))

    def run_epoch(
        self,
        rows: Rows,
        order_N: NDArray[np.int64],
        batch: int,
        threads: Threads,
        should_stop: Callable[[], bool],
    ) -> NDArray[np.float64] | None:
        """Take one step per mini batch; return each model's mean loss, None where told to stop."""
        loss_M = np.zeros(len(self))
        stretch = max(_ROWS_BETWEEN_LOOKS // batch, 1) * batch
        for start in range(0, len(order_N), stretch):
            if should_stop():
                return None
            self._run_stretch(rows, order_N[start : start + stretch], batch, threads, loss_M)
        return loss_M / len(order_N)

    def _run_stretch(
        self,
        rows: Rows,
        order_N: NDArray[np.int64],
        batch: int,
        threads: Threads,
        loss_M: NDArray[np.float64],
    ) -> None:
        data = rows.x_NP, rows.target_N, rows.group_N

        def run(a: int, b: int) -> int:
            models = self._part(a, b, loss_M)
            n_steps = run_batches(data, order_N, batch, self.n_outputs, models, self.n_steps)
            return int(n_steps)

        self.n_steps = threads.spread(run, len(self))[0]

    def _part(self, a: int, b: int, loss_M: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
        k = slice(a * self.n_outputs, b * self.n_outputs)
        moments = self.theta_KP[k], self.first_KP[k], self.second_KP[k]
        return self.settings_M[a:b], self.weight_MG[a:b], *moments, loss_M[a:b]


def logits_of(x_VP: Float32, theta_KP: Float32, threads: Threads) -> Float32:
    """Return the products of rows and weights, float32 of shape (K, V)."""
    out_KV = np.empty((len(theta_KP), len(x_VP)), np.float32)
    threads.spread(lambda a, b: logits(x_VP, theta_KP, a, out_KV[:, a:b]), len(x_VP))
    return out_KV


def outputs_of(parameters: LinearLearnerParameters) -> int:
    """Return how many scores a model gives: one, or one per class."""
    is_multiclass = parameters.predictor_type == "multiclass_classifier"
    return parameters.num_classes if is_multiclass else 1


def settings_of(
    parameters: LinearLearnerParameters, n_features: int, label_scaler: LabelScaler
) -> tuple[Any, ...]:
    """Return a model's record of `SETTINGS`."""
    is_sgd, is_adam = parameters.optimizer == "sgd", parameters.optimizer == "adam"
    return (
        LOSS_CODES[parameters.loss],
        loss_shape(parameters) / label_scaler.unit(parameters.loss),
        OPTIMIZER_CODES[parameters.optimizer],
        parameters.learning_rate,
        parameters.lr_scheduler_factor,
        parameters.lr_scheduler_step if parameters.use_lr_scheduler else 0,
        parameters.lr_scheduler_minimum_lr,
        parameters.l1,
        parameters.wd,
        n_features,
        parameters.bias_lr_mult if parameters.use_bias else 0.0,
        parameters.wd * parameters.bias_wd_mult,
        parameters.momentum if is_sgd else parameters.beta_1,
        parameters.beta_2 if is_adam else RMSPROP_DECAY,
    )


def loss_shape(parameters: LinearLearnerParameters) -> float:
    """Return the hyperparameter that shapes the loss, 0 where none does."""
    named = {
        "hinge_loss": parameters.margin,
        "quantile_loss": parameters.quantile,
        "huber_loss": parameters.huber_delta,
        "eps_insensitive_squared_loss": parameters.loss_insensitivity,
        "eps_insensitive_absolute_loss": parameters.loss_insensitivity,
    }
    return named.get(parameters.loss, 0.0)


def start_weights(member: Member, n_features: int, n_outputs: int, *, seed: int) -> Float32:
    """Return a model's weights before the first step, the bias last: (outputs, features + 1)."""
    parameters = member.parameters
    rng = generator(seed, Stream.START, member.variant)
    shape = (n_outputs, n_features)
    if parameters.init_method == "normal":
        weights_CD = rng.normal(0.0, parameters.init_sigma, shape)
    else:
        weights_CD = rng.uniform(-parameters.init_scale, parameters.init_scale, shape)
    bias = parameters.init_bias if parameters.use_bias else 0.0
    return np.append(weights_CD, np.full((n_outputs, 1), bias), axis=1).astype(np.float32)
