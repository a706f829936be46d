"""What a network looks like and how it is trained, as a strategy says it; free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trademl.errors import ConfigError

NetworkKind = Literal["temporal_convolution", "transformer"]
Loss = Literal["logistic", "squared"]
Precision = Literal["float32", "bfloat16"]
Criterion = Literal[
    "accuracy", "f_beta", "precision_at_target_recall", "recall_at_target_precision",
    "loss_function",
]  # fmt: skip

NETWORK_KINDS: dict[Loss, str] = {
    "logistic": "network binary classifier",
    "squared": "network regressor",
}
NETWORK = "network"  # the hyperparameter that only a network's training job has


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network: section ``[network]`` of a strategy file.

    Parameters
    ----------
    kind : {"temporal_convolution", "transformer"}
        Dilated causal convolutions, or an encoder of self-attention; a transformer of depth 1 is a
        small attention network.
    n_steps : int
        Steps of time in a row's features, oldest first. The last ``n_steps * C`` columns are the
        steps, C channels each; the columns before them, if any, are given to every step.
    width : int
        Channels inside the network.
    depth : int
        Blocks between the embedding and the head; the network has ``depth + 2`` layers.
    heads : int
        Of attention; divides ``width``.
    kernel : int
        Taps of a convolution.
    expansion : int
        Width of the inner layer of an encoder block, in multiples of ``width``.
    n_outputs : int
        Numbers predicted for a row: logits of label 1, or values.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    kind: NetworkKind = "temporal_convolution"
    n_steps: int = 1
    width: int = 32
    depth: int = 3
    heads: int = 4
    kernel: int = 3
    expansion: int = 4
    n_outputs: int = 1

    def __post_init__(self) -> None:
        for name in ("n_steps", "width", "depth", "heads", "kernel", "expansion", "n_outputs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.kind == "transformer" and self.width % self.heads:
            raise ConfigError(f"width {self.width} is not a multiple of {self.heads} heads")

    @property
    def n_layers(self) -> int:
        """Layers that a pipeline may cut between: embedding, blocks, head."""
        return self.depth + 2

    def channels(self, feature_dim: int) -> tuple[int, int]:
        """Return how many channels a step has, and how many columns stand for no step.

        Raises
        ------
        ConfigError
            If the columns are fewer than the steps.
        """
        if feature_dim < self.n_steps:
            raise ConfigError(f"n_steps is {self.n_steps}, the data have {feature_dim} columns")
        return feature_dim // self.n_steps, feature_dim % self.n_steps


@dataclass(frozen=True)
class NetworkTraining:
    """How a network is trained: section ``[training]`` of a strategy file.

    Parameters
    ----------
    loss : {"logistic", "squared"}
        Labels 0 and 1, or values.
    epochs : int
        At most.
    batch_size : int
        Rows of one step, over all processes.
    learning_rate, weight_decay : float
        Of AdamW.
    clip_norm : float
        Bound on the norm of a step's gradient over the whole network; 0 for none.
    accumulate : int
        Pieces that a process cuts its rows into, to hold fewer activations.
    precision : {"float32", "bfloat16"}
        Of matrix products; weights and sums stay float32.
    recompute : bool
        Compute activations again in the backward pass instead of keeping them.
    patience : int
        Epochs without improvement after which training stops.
    tolerance : float
        Relative gain of the validation loss that counts as an improvement.
    block_rows : int
        Neighbouring rows that stay together when rows are shuffled; 1 shuffles every row.
    checkpoint_steps : int
        Steps between checkpoints inside an epoch; 0 for one at the end of each epoch.
    max_restarts : int
        How often a run goes on from its last checkpoint after a process was lost.
    criterion, target_recall, target_precision, f_beta
        How the threshold is calibrated on validation rows: as Linear Learner's
        ``binary_classifier_model_selection_criteria`` and the values that go with it.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    loss: Loss = "logistic"
    epochs: int = 10
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    accumulate: int = 1
    precision: Precision = "float32"
    recompute: bool = False
    patience: int = 3
    tolerance: float = 1e-4
    block_rows: int = 16
    checkpoint_steps: int = 0
    max_restarts: int = 2
    criterion: Criterion = "f_beta"
    target_recall: float = 0.8
    target_precision: float = 0.8
    f_beta: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "patience", "block_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name in (
            "learning_rate", "weight_decay", "clip_norm", "tolerance", "checkpoint_steps",
            "max_restarts", "target_recall", "target_precision", "f_beta",
        ):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}, expected 0 or more")
        if self.learning_rate == 0:
            raise ConfigError("learning_rate is 0, expected above 0")

    def calibration(self) -> dict[str, str | float]:
        """Return how the threshold is calibrated, under the names of Linear Learner."""
        return {
            "binary_classifier_model_selection_criteria": self.criterion,
            "target_recall": self.target_recall,
            "target_precision": self.target_precision,
            "f_beta": self.f_beta,
        }


def is_network(hyperparameters: Mapping[str, object]) -> bool:
    """Return whether the hyperparameters of a training job are a network's."""
    return NETWORK in hyperparameters
