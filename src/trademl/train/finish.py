"""From trained weights to the model that is kept: chosen, calibrated, measured, described.

Shape letters: D feature columns, P columns, V rows held out, C scores of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trademl.errors import TrainError
from trademl.etl.dataset import Split
from trademl.store.identity import code_version
from trademl.train.engine import loss_shape
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.inputs import sample_rows
from trademl.train.losses import row_losses
from trademl.train.members import AUTO_WEIGHT, VARIANTS
from trademl.train.metrics import (
    Metrics,
    binary_metrics,
    multiclass_metrics,
    regression_metrics,
)
from trademl.train.model import LinearKind, LinearModel, Link, MulticlassModel, RegressionModel
from trademl.train.races import EARLY_STOPPING, Best, EpochLog, Runner, criterion_rank
from trademl.train.thresholds import RULE, calibrate_as
from trademl.train.training import Training

RULES = {
    "threshold": RULE,
    "num_models": VARIANTS,
    "positive_example_weight_mult": AUTO_WEIGHT,
    "early_stopping": EARLY_STOPPING,
    "model_selection": (
        "of a job's models the best under the criterion on the calibration sample, of equal ones "
        "the one with the smaller loss, then the lower number; multiclass and regression: the loss"
    ),
    "loss": "the mean over the batch of weight times loss; objective_loss weighs every row 1",
    "l1": "a proximal step in the metric of the optimizer's own step, after it; not on the bias",
    "label_units": "huber_delta and loss_insensitivity are in units of the label as given",
}


@dataclass(frozen=True)
class TrainedModel:
    """A model, its metrics under SageMaker's names, and how training went.

    Parameters
    ----------
    model : LinearKind
        Counts as refused until selection has judged it.
    metrics : mapping
        ``<split>:<metric>``.
    history : tuple of EpochLog
        Of the model that was chosen among ``n_models``; it has the number ``number``.
    best_epoch : int
        Whose weights the model has.
    """

    model: LinearKind
    metrics: Metrics
    history: tuple[EpochLog, ...]
    best_epoch: int
    number: int = 0
    n_models: int = 1


def finish(
    training: Training, candidate: int, splits: Mapping[str, Split], columns: tuple[str, ...]
) -> TrainedModel | TrainError:
    """Return the best of a candidate's models as it will be served, or why there is none."""
    own = [runner for runner in training.runners if runner.member.candidate == candidate]
    trained = {runner: runner.best for runner in own if runner.best is not None}
    if not trained:
        return TrainError(str(own[0].failure))
    runner = _choose(training, trained)
    best = trained[runner]
    model, facts = _calibrate(training, _build(training, runner.member.parameters, best, columns))
    metrics = measure(model, splits, runner.member.parameters)
    facts |= {
        **metrics,
        "best_epoch": best.epoch,
        "epochs": len(runner.history),
        "model_number": runner.member.number,
        "n_models": len(own),
        "n_looks": sum(len(one.history) for one in own),
        "stopped_early": training.is_stopped,
    }
    return TrainedModel(
        replace(model, metrics=facts),
        metrics,
        tuple(runner.history),
        best.epoch,
        runner.member.number,
        len(own),
    )


def measure(
    model: LinearKind, splits: Mapping[str, Split], parameters: LinearLearnerParameters
) -> Metrics:
    """Return a model's metrics on each split, named ``<split>:<metric>``."""
    metrics: Metrics = {}
    for prefix, split in splits.items():
        found = _measure_one(model, split, parameters)
        metrics |= {f"{prefix}:{name}": value for name, value in found.items()}
    return metrics


def _measure_one(model: LinearKind, split: Split, parameters: LinearLearnerParameters) -> Metrics:
    logits = model.logits(split.features_ND)
    score_CN = logits.T if logits.ndim == 2 else logits[None, :]
    losses_N = row_losses(parameters.loss, loss_shape(parameters), split.label_N, score_CN)
    loss, beta = float(losses_N.mean()), parameters.f_beta
    if isinstance(model, MulticlassModel):
        top_k = parameters.accuracy_top_k
        return multiclass_metrics(split.label_N, logits, beta=beta, top_k=top_k, loss=loss)
    if isinstance(model, RegressionModel):
        return regression_metrics(split.label_N, logits, loss=loss)
    flag_N = model.flags(model.scores_of(logits))
    return binary_metrics(split.label_N, logits, flag_N, beta=beta, loss=loss)


def _choose(training: Training, trained: Mapping[Runner, Best]) -> Runner:
    """Return the model that `RULES` prefers, by its best epoch."""
    runners, n = list(trained), training.models.n_outputs
    if len(runners) == 1:
        return runners[0]
    score_KV = training.scores(np.concatenate([best.theta_CP for best in trained.values()]))

    def preference(at: int) -> tuple[Any, ...]:
        runner, label_V = runners[at], training.holdout.split.label_N
        parameters, score_CV = runner.member.parameters, score_KV[at * n : (at + 1) * n]
        rows = sample_rows(len(label_V), parameters.num_calibration_samples, training.seed)
        losses_V = row_losses(
            parameters.loss, loss_shape(parameters), label_V[rows], score_CV[:, rows]
        )
        rank = (True, 0.0)
        if parameters.predictor_type == "binary_classifier":
            rank = criterion_rank(parameters, label_V[rows], score_CV[0][rows])
        return *rank, -float(losses_V.mean()), -runner.member.number

    preferences = training.threads.each(preference, len(runners))
    return runners[max(range(len(runners)), key=lambda at: preferences[at])]


def _build(
    training: Training, parameters: LinearLearnerParameters, best: Best, columns: tuple[str, ...]
) -> LinearKind:
    """Return the model that the weights are, in units of the label."""
    d = len(training.scaler.mean_D)
    weights_CD = best.theta_CP[:, :d].astype(np.float64) * training.label_scaler.scale
    bias_C = best.theta_CP[:, d].astype(np.float64) * training.label_scaler.scale
    bias_C += training.label_scaler.mean
    described: dict[str, Any] = {
        "columns": columns,
        "hyperparameters": parameters.as_dict(),
        "code_version": code_version(),
        "rules": RULES,
    }
    scaling = training.scaler.mean_D, training.scaler.scale_D
    if parameters.predictor_type == "multiclass_classifier":
        return MulticlassModel(weights_CD, bias_C, *scaling, **described)
    weights_D, bias = weights_CD[0], float(bias_C[0])
    if parameters.predictor_type == "regressor":
        return RegressionModel(weights_D, bias, *scaling, **described)
    link: Link = "logistic" if parameters.loss == "logistic" else "identity"
    return LinearModel(weights_D, bias, *scaling, threshold=0.5, link=link, **described)


def _calibrate(training: Training, model: LinearKind) -> tuple[LinearKind, dict[str, Any]]:
    """Set a binary classifier's threshold by the scores that it will be served with."""
    if not isinstance(model, LinearModel):
        return model, {}
    split, settings = training.holdout.split, model.hyperparameters
    rows = sample_rows(len(split), settings["num_calibration_samples"], training.seed)
    score_V = model.scores(split.features_ND[rows])
    found = calibrate_as(settings, split.label_N[rows], score_V)
    facts = {"is_target_met": found.is_target_met, "threshold_rule": RULE}
    return replace(model, threshold=found.value), facts
