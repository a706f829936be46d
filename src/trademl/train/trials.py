"""What one training job of a search left behind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trademl.errors import TrainError
from trademl.train.metrics import Metrics
from trademl.train.model import BinaryModel, load_binary_model

Direction = Literal["Maximize", "Minimize"]


@dataclass(frozen=True)
class Objective:
    """The metric that a search optimises, for example ``validation:precision``, and which way."""

    metric: str
    direction: Direction


@dataclass(frozen=True)
class TrialResult:
    """One trial, trained or failed.

    Parameters
    ----------
    number : int
        Position in the search, from 0.
    hyperparameters : dict of str to str
        Static and tuned ones, as SageMaker would send them.
    objective : float or None
        Value of the objective; None where it is undefined or the trial failed.
    direction : {"Maximize", "Minimize"}
        Which way the objective is better.
    metrics : dict
        ``<split>:<metric>``.
    model_path : Path or None
        Where the model lies; None where the trial failed.
    failure : str or None
        Why it failed.
    losses : tuple of float
        Validation loss after each epoch, in nats.
    is_stopped : bool
        Whether a rule of the search ended it before its last epoch; its best epoch counts.
    """

    number: int
    hyperparameters: dict[str, str]
    objective: float | None
    direction: Direction
    metrics: Metrics = field(default_factory=dict)
    model_path: Path | None = None
    failure: str | None = None
    losses: tuple[float, ...] = ()
    is_stopped: bool = False

    @property
    def status(self) -> str:
        """``Completed``, ``Stopped`` or ``Failed``, as SageMaker calls it."""
        if self.failure is not None:
            return "Failed"
        return "Stopped" if self.is_stopped else "Completed"

    @property
    def rank(self) -> float:
        """The objective turned so that higher is better; minus infinity where there is none."""
        if self.objective is None:
            return -math.inf
        return self.objective if self.direction == "Maximize" else -self.objective

    def model(self) -> BinaryModel:
        """Read the trained model.

        Raises
        ------
        TrainError
            If the trial failed.
        StoreError
            If its file is missing or damaged.
        """
        if self.model_path is None:
            raise TrainError(f"trial {self.number} has no model: {self.failure}")
        return load_binary_model(self.model_path)
