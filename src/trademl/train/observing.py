"""What training tells while it runs, and what it asks: observers, checkpoints, a reason to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from trademl.train.hyperparameters import LinearLearnerParameters
    from trademl.train.linear_learner import TrainedModel

ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class EpochReport:
    """What one epoch of one candidate measured.

    Parameters
    ----------
    candidate : int
        Position among the candidates of `fit_together`; 0 in `fit`.
    epoch, epochs : int
        Number of this epoch, from 0, and how many there may be.
    train_loss_M, validation_loss_M : tuple of float
        Mean loss per model of the candidate that is still training, by the numbers in `model_M`;
        ``validation_loss_M`` is empty without a validation split.
    model_M : tuple of int
        Their numbers, from 0; model 0 has the hyperparameters as they were given.
    criterion : str
        What early stopping watches: ``loss`` or ``sampled_<criterion>``.
    watched : float
        Its value for the best model of this epoch.
    is_improved : bool
        Whether this epoch is the best so far.
    n_records : int
        Training rows that the epoch read.
    seconds : float
        How long it took, validation included.
    """

    candidate: int
    epoch: int
    epochs: int
    train_loss_M: tuple[float, ...]
    validation_loss_M: tuple[float, ...]
    model_M: tuple[int, ...]
    criterion: str
    watched: float
    is_improved: bool
    n_records: int
    seconds: float


class TrainingObserver(Protocol):
    """Told how training goes; must not raise and must be cheap. Candidates come in their order."""

    def started(self, candidate: int, parameters: LinearLearnerParameters, n_models: int) -> None:
        """Say that a candidate begins to train (again, after a resume) as ``n_models`` models."""

    def epoch_ended(self, report: EpochReport) -> None:
        """Say what an epoch measured; called for each candidate that still trains."""

    def finished(self, candidate: int, trained: TrainedModel) -> None:
        """Say what came of a candidate; not called for one that failed."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that decides how training goes on after an epoch.

    ``facts`` holds what JSON can hold, ``arrays`` the weights and the optimiser's moments.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Checkpoint(Protocol):
    """Keeps the newest state of one training job: after a crash it holds the old one or the new."""

    def load(self) -> TrainingState | None:
        """Return the state saved last, or None where none was saved.

        Raises
        ------
        StoreError
            If what was saved is damaged.
        """

    def save(self, state: TrainingState) -> None:
        """Keep a state in place of the one before."""
