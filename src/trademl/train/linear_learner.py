"""Train a binary Linear Learner epoch by epoch and keep the best one.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trademl.errors import ConfigError, TrainError
from trademl.etl.dataset import Split
from trademl.ports import Progress, Silent
from trademl.stats.probability import logistic_loss
from trademl.train.adam import (
    AdamState,
    Penalty,
    adam_step,
    loss_gradient,
    make_penalty,
    start_state,
)
from trademl.train.determinism import Stream, generator, single_thread
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.inputs import check_inputs, sample_rows
from trademl.train.metrics import Metrics, binary_metrics
from trademl.train.model import LinearModel, sigmoid
from trademl.train.observing import Checkpoint, ShouldStop, TrainingObserver
from trademl.train.scaler import Scaler, fit_scaler
from trademl.train.thresholds import RULE, Threshold, calibrate_as

CRITERION = "binary_classifier_model_selection_criteria"


@dataclass(frozen=True)
class EpochLog:
    """What one epoch measured: mean logistic losses in nats, and what early stopping watched."""

    epoch: int
    train_loss: float
    validation_loss: float
    watched: float


@dataclass(frozen=True)
class TrainedModel:
    """A model, its metrics under SageMaker's names, and how training went."""

    model: LinearModel
    metrics: Metrics
    history: tuple[EpochLog, ...]
    best_epoch: int


@dataclass(frozen=True)
class Rows:
    """Normalised training rows as tensors, with the weight of each row in the loss."""

    features_ND: Tensor
    label_N: Tensor
    weight_N: Tensor


def pass_key(parameters: LinearLearnerParameters) -> Hashable:
    """Return what candidates must share to be trained in one pass by `fit_together`."""
    return parameters.predictor_type, parameters.mini_batch_size


def fit_together(
    train: Split,
    validation: Split | None,
    candidates: Sequence[LinearLearnerParameters],
    *,
    seed: int,
    progress: Progress | None = None,
    columns: Sequence[str] = (),
    test: Split | None = None,
    observer: TrainingObserver | None = None,
    checkpoint: Checkpoint | None = None,
    should_stop: ShouldStop | None = None,
) -> list[TrainedModel | TrainError]:
    """Train candidates that share their `pass_key`; each equals its own `fit`, bit for bit."""
    found: list[TrainedModel | TrainError] = []
    for parameters in candidates:
        try:
            found.append(
                fit(
                    train,
                    validation,
                    parameters,
                    seed=seed,
                    progress=progress,
                    columns=columns,
                    test=test,
                )
            )
        except TrainError as error:
            found.append(error)
    return found


def fit(
    train: Split,
    validation: Split | None,
    parameters: LinearLearnerParameters,
    *,
    seed: int,
    progress: Progress | None = None,
    columns: Sequence[str] = (),
    test: Split | None = None,
    observer: TrainingObserver | None = None,
    checkpoint: Checkpoint | None = None,
    should_stop: ShouldStop | None = None,
) -> TrainedModel:
    """Train one model; the same inputs and seed give the same bits.

    Parameters
    ----------
    train : Split
        Weights and normalisation come from these rows alone.
    validation : Split
        Calibrates the threshold, stops training and picks the epoch.
    parameters : LinearLearnerParameters
        See `LinearLearnerParameters.from_strings`.
    seed : int
        Decides the start, the order of rows and every sample.
    columns : sequence of str
        Names of the features; ``x0``, ``x1`` ... where empty.
    test : Split, optional
        Measured once at the end under ``test:``; it changes nothing.

    Returns
    -------
    TrainedModel
        Its model counts as refused until selection has judged it.

    Raises
    ------
    ConfigError
        If ``feature_dim`` is not the width of the data.
    DataError
        If a split is empty, or holds a feature that is not finite or a label other than 0 and 1.
    TrainError
        If the weights stop being finite; it names the hyperparameters.
    """
    validation = train if validation is None else validation
    names = tuple(columns) or tuple(f"x{i}" for i in range(train.features_ND.shape[1]))
    splits = {"train": train, "validation": validation} | ({"test": test} if test else {})
    check_inputs(splits, parameters, names)
    calibration = sample_rows(validation, parameters.num_calibration_samples, seed)
    scaler = fit_scaler(train.features_ND, parameters, seed=seed)
    with single_thread(), torch.no_grad():
        rows = _rows(train, scaler, parameters)
        best, history = _train_epochs(
            rows, calibration, scaler, parameters, seed, progress or Silent()
        )
    model = replace(best.model, columns=names)
    metrics = measure(model, splits, beta=parameters.f_beta)
    facts = {
        **metrics,
        "best_epoch": best.log.epoch,
        "epochs": len(history),
        "is_target_met": best.threshold.is_target_met,
        "threshold_rule": RULE,
    }
    return TrainedModel(replace(model, metrics=facts), metrics, history, best.log.epoch)


def measure(model: LinearModel, splits: Mapping[str, Split], *, beta: float) -> Metrics:
    """Return the metrics of each split, named ``<split>:<metric>``."""
    metrics: Metrics = {}
    for prefix, split in splits.items():
        logit_N = model.logits(split.features_ND)
        flagged_N = sigmoid(logit_N).astype(np.float32) >= np.float32(model.threshold)
        found = binary_metrics(split.label_N, logit_N, flagged_N, beta=beta)
        metrics |= {f"{prefix}:{name}": value for name, value in found.items()}
    return metrics


@dataclass(frozen=True)
class _Epoch:
    """An epoch's model and how good it is: ``rank`` is whether the target is met, and how well."""

    model: LinearModel
    threshold: Threshold
    rank: tuple[bool, float]
    log: EpochLog

    def gain_over(self, best: _Epoch | None) -> float:
        """Return the relative improvement; infinite where only this one meets the target."""
        if best is None:
            return np.inf
        if self.rank[0] != best.rank[0]:
            return np.inf if self.rank[0] else -np.inf
        gain, size = self.rank[1] - best.rank[1], abs(best.rank[1])
        if size == 0.0:
            return float(np.inf * np.sign(gain)) if gain else 0.0
        return gain / size


def _train_epochs(
    rows: Rows,
    calibration: Split,
    scaler: Scaler,
    parameters: LinearLearnerParameters,
    seed: int,
    progress: Progress,
) -> tuple[_Epoch, tuple[EpochLog, ...]]:
    """Train until the epochs or the patience end; return the best epoch and every epoch's log."""
    width = len(scaler.mean_D)
    state, penalty = start_state(width, parameters, seed=seed), make_penalty(width, parameters)
    best: _Epoch | None = None
    history: list[EpochLog] = []
    idle = 0
    for epoch in range(parameters.epochs):
        train_loss = run_epoch(state, rows, penalty, parameters, seed=seed, epoch=epoch)
        found = _validate(state, scaler, calibration, parameters, epoch, train_loss)
        history.append(found.log)
        progress.advance(epoch + 1, parameters.epochs)
        gain = found.gain_over(best)
        idle = 0 if gain >= parameters.early_stopping_tolerance else idle + 1
        best = found if best is None or gain > 0.0 else best
        if idle >= parameters.early_stopping_patience:
            break
    if best is None:
        raise ConfigError(f"epochs is {parameters.epochs}, expected an integer above 0")
    return best, tuple(history)


def run_epoch(
    state: AdamState,
    rows: Rows,
    penalty: Penalty,
    parameters: LinearLearnerParameters,
    *,
    seed: int,
    epoch: int,
) -> float:
    """Take one step per mini batch and return the mean plain loss of the rows, in nats.

    The order of the rows depends on seed and epoch alone, so it is the same for every trial.

    Raises
    ------
    TrainError
        If the parameters are no longer finite.
    """
    n = len(rows.label_N)
    order = torch.from_numpy(generator(seed, Stream.SHUFFLE, epoch).permutation(n))
    total = torch.zeros((), dtype=torch.float64)
    for batch in torch.split(order, parameters.mini_batch_size):
        gradient_P, losses = loss_gradient(
            state.theta_P,
            rows.features_ND[batch],
            rows.label_N[batch],
            rows.weight_N[batch],
            penalty,
        )
        adam_step(state, gradient_P, penalty, parameters)
        total += losses
    if not torch.isfinite(state.theta_P).all():
        raise TrainError(
            f"the weights are not finite after epoch {epoch} with {_tunables(parameters)}: lower "
            "learning_rate or positive_example_weight_mult, or set normalize_data to true"
        )
    return float(total) / n


def _validate(
    state: AdamState,
    scaler: Scaler,
    calibration: Split,
    parameters: LinearLearnerParameters,
    epoch: int,
    train_loss: float,
) -> _Epoch:
    """Calibrate the threshold on the model as it would be served, and rank the epoch."""
    theta_P = state.theta_P.numpy().astype(np.float64)
    model = LinearModel(
        weights_D=theta_P[:-1],
        bias=float(theta_P[-1]),
        mean_D=scaler.mean_D,
        scale_D=scaler.scale_D,
        threshold=0.5,
        columns=(),
        hyperparameters=parameters.as_dict(),
    )
    logit_N = model.logits(calibration.features_ND)
    loss = logistic_loss(calibration.label_N, logit_N)
    score_N = sigmoid(logit_N).astype(np.float32)
    threshold = calibrate_as(model.hyperparameters, calibration.label_N, score_N)
    rank = (threshold.is_target_met, threshold.criterion_value)
    if CRITERION not in parameters.given or threshold.criterion == "loss_function":
        rank = (True, -loss)
    log = EpochLog(epoch, train_loss, loss, abs(rank[1]))
    return _Epoch(replace(model, threshold=threshold.value), threshold, rank, log)


def _rows(train: Split, scaler: Scaler, parameters: LinearLearnerParameters) -> Rows:
    label_N = torch.from_numpy(np.array(train.label_N, dtype=np.float32))
    weight = _positive_weight(train.label_N, parameters)
    return Rows(
        features_ND=torch.from_numpy(scaler.apply(train.features_ND)),
        label_N=label_N,
        weight_N=torch.where(label_N > 0.5, torch.tensor(weight), torch.tensor(1.0)),
    )


def _positive_weight(label_N: NDArray[Any], parameters: LinearLearnerParameters) -> float:
    if not isinstance(parameters.positive_example_weight_mult, str):
        return parameters.positive_example_weight_mult
    n_positive = int((label_N > 0.5).sum())
    if n_positive in (0, len(label_N)):
        raise TrainError(
            "positive_example_weight_mult balanced needs both labels in train, which has "
            f"{n_positive} positive rows of {len(label_N)}: set a number"
        )
    return (len(label_N) - n_positive) / n_positive


def _tunables(parameters: LinearLearnerParameters) -> str:
    names = ("learning_rate", "mini_batch_size", "positive_example_weight_mult", "l1", "wd")
    return ", ".join(f"{name} {getattr(parameters, name)}" for name in names)
