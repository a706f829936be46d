"""How epochs are ranked, when a model stops, and which of a candidate's models wins.

Shape letters: V rows held out, C scores of a row, P columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.train.engine import loss_shape
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.losses import row_losses
from trademl.train.members import Member
from trademl.train.thresholds import calibrate_as

CRITERION = "binary_classifier_model_selection_criteria"
EARLY_STOPPING = (
    "the selection criterion is watched where it was given and there is a validation split, else "
    "the loss; an epoch counts as idle unless it improves on the best by the tolerance times the "
    "best; the best epoch's weights are kept"
)
Rank = tuple[bool, float]


@dataclass(frozen=True)
class EpochLog:
    """What one epoch of one model measured.

    Parameters
    ----------
    train_loss : float
        Mean loss of the rows as they were read, each before its step.
    validation_loss : float
        Mean loss of the held-out rows at the end of the epoch: of validation or, without it, train.
    watched : float
        What early stopping watched.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    watched: float


@dataclass(frozen=True)
class Found:
    """What held-out rows say of a model: its loss, and its rank; higher is better."""

    loss: float
    rank: Rank

    @property
    def watched(self) -> float:
        """The criterion's value, or the loss."""
        return abs(self.rank[1])


@dataclass(frozen=True)
class Best:
    """A model's best epoch so far, with its weights of shape (C, P)."""

    epoch: int
    found: Found
    theta_CP: NDArray[np.float32]


@dataclass(eq=False)
class Runner:
    """A model on its way through the epochs."""

    member: Member
    best: Best | None = None
    idle: int = 0
    history: list[EpochLog] = field(default_factory=list)
    failure: str | None = None
    is_done: bool = False

    def look(
        self, epoch: int, found: Found, train_loss: float, theta_CP: NDArray[np.float32]
    ) -> None:
        """Take an epoch's figures: keep the best weights, and see whether to stop."""
        parameters = self.member.parameters
        self.history.append(EpochLog(epoch, train_loss, found.loss, found.watched))
        gain = gain_over(found.rank, self.best.found.rank if self.best else None)
        self.idle = 0 if gain >= parameters.early_stopping_tolerance else self.idle + 1
        if self.best is None or gain > 0.0:
            self.best = Best(epoch, found, theta_CP.copy())
        is_out_of_patience = self.idle >= parameters.early_stopping_patience
        self.is_done = is_out_of_patience or epoch + 1 >= parameters.epochs

    def fail(self, epoch: int) -> None:
        """Take the model out: its weights are no longer numbers."""
        self.failure = (
            f"the weights are not finite after epoch {epoch} with "
            f"{_tunables(self.member.parameters)}: lower learning_rate or "
            "positive_example_weight_mult, or set normalize_data to true"
        )
        self.is_done, self.best = True, None


def gain_over(rank: Rank, best: Rank | None) -> float:
    """Return the relative improvement; infinite where only the new one meets the target."""
    if best is None:
        return math.inf
    if rank[0] != best[0]:
        return math.inf if rank[0] else -math.inf
    gain, size = rank[1] - best[1], abs(best[1])
    if size == 0.0:
        return math.copysign(math.inf, gain) if gain else 0.0
    return gain / size


def watches_criterion(parameters: LinearLearnerParameters, *, is_validation: bool) -> bool:
    """Return whether early stopping watches the selection criterion rather than the loss."""
    is_named = parameters.binary_classifier_model_selection_criteria != "loss_function"
    is_binary = parameters.predictor_type == "binary_classifier"
    return is_binary and is_validation and is_named and CRITERION in parameters.given


def judge_epoch(
    parameters: LinearLearnerParameters,
    label_V: NDArray[Any],
    score_CV: NDArray[Any],
    sample: Any,
    *,
    is_validation: bool,
) -> Found:
    """Rank a model by its scores of the held-out rows; ``sample`` picks those that calibrate."""
    losses_V = row_losses(parameters.loss, loss_shape(parameters), label_V, score_CV)
    loss = float(losses_V.mean())
    if not watches_criterion(parameters, is_validation=is_validation):
        return Found(loss, (True, -float(losses_V[sample].mean())))
    return Found(loss, criterion_rank(parameters, label_V[sample], score_CV[0][sample]))


def criterion_rank(
    parameters: LinearLearnerParameters, label_V: NDArray[Any], score_V: NDArray[Any]
) -> Rank:
    """Return whether the target is met, and the criterion's value, at the calibrated threshold."""
    found = calibrate_as(parameters.as_dict(), label_V, score_V)
    return found.is_target_met, found.criterion_value


def _tunables(parameters: LinearLearnerParameters) -> str:
    names = ("learning_rate", "mini_batch_size", "positive_example_weight_mult", "l1", "wd")
    return ", ".join(f"{name} {getattr(parameters, name)}" for name in names)
