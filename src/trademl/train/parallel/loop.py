"""The training loop: step, epoch, validation, checkpoint; the same under every technique.

Shape letters: B rows of a rank, D features, K targets.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch

from trademl.errors import TrainError
from trademl.train.network_config import NetworkTraining
from trademl.train.parallel.checkpoints import Checkpoints
from trademl.train.parallel.position import EpochLoss, Position
from trademl.train.parallel.stream import Batch, BatchStream
from trademl.train.parallel.technique import Technique
from trademl.train.parallel.world import World


@dataclass
class Trainer:
    """Trains one rank's part of a network.

    Parameters
    ----------
    technique : Technique
    training : NetworkTraining
    train, validation : BatchStream
        The rank's share of the rows.
    world : World
    checkpoints : Checkpoints, optional
        None writes none.
    report : callable
        Told the position after each epoch, on the first process.
    """

    technique: Technique
    training: NetworkTraining
    train: BatchStream
    validation: BatchStream
    world: World
    checkpoints: Checkpoints | None = None
    report: Callable[[Position], None] = lambda _: None
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        self._running = torch.zeros((), dtype=torch.float64, device=self.world.device)
        self.optimizer = torch.optim.AdamW(
            self.technique.layers.parameters(),
            lr=self.training.learning_rate,
            weight_decay=self.training.weight_decay,
        )

    def run(self) -> Position:
        """Train to the last epoch, or until patience ends; go on from a checkpoint if there is one.

        Raises
        ------
        TrainError
            If the loss is no longer finite.
        """
        self.resume()
        place = self.position
        with self.train.opened(place.epoch, number=place.number) as batches:
            while not self.is_finished:
                self.run_epoch(batches)
        return self.position

    @property
    def is_finished(self) -> bool:
        """Whether training has ended; the same on every process."""
        place = self.position
        return place.epoch >= self.training.epochs or place.idle >= self.training.patience

    def run_epoch(self, batches: Iterator[Batch]) -> None:
        """Take the remaining steps of an epoch, validate, decide whether it was the best."""
        began, first = time.perf_counter(), self.position.number
        n_batches = self.train.order.n_batches
        for _ in range(first, n_batches):
            self.step(next(batches))
            every = self.training.checkpoint_steps
            if every and self.position.step % every == 0 and self.position.number < n_batches:
                self.checkpoint()
        train_loss = self._loss_so_far() / self.train.order.n_rows
        validation_loss = self.validate()
        self._check_finite(train_loss, validation_loss)
        n_rows = self.train.order.n_rows - first * self.training.batch_size
        rows_per_s = n_rows / (time.perf_counter() - began)
        found = EpochLoss(self.position.epoch, train_loss, validation_loss, rows_per_s)
        self.position = self.position.after_epoch(found, tolerance=self.training.tolerance)
        self._start_sum(0.0)
        self.checkpoint()
        if self.world.is_first:
            self.report(self.position)

    def step(self, batch: Batch) -> None:
        """Take one step of the optimizer."""
        self.technique.layers.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.technique.step(batch.features_BD, batch.target_BK)
        if self.training.clip_norm:
            self.technique.clip(self.training.clip_norm)
        self.optimizer.step()
        self._running += loss.double() * self.train.order.n_real(batch.number)
        place = self.position
        self.position = replace(place, step=place.step + 1, number=batch.number + 1)

    def validate(self) -> float:
        """Return the mean loss of the validation rows, the same number on every process."""
        self.technique.layers.eval()
        total = torch.zeros_like(self._running)
        with self.validation.opened(epochs=1) as batches:
            for batch in batches:
                loss = self.technique.evaluate(batch.features_BD, batch.target_BK)
                total += loss.double() * self.validation.order.n_real(batch.number)
        return self.world.first_says(self.world.sum(total) / self.validation.order.n_rows)

    def checkpoint(self) -> None:
        """Keep weights, moments and position."""
        if self.checkpoints is None:
            return
        loss_sum = self._loss_so_far()
        self.position = replace(self.position, loss_sum=loss_sum)
        self._start_sum(loss_sum)
        self.checkpoints.save(self.technique.layers, self.optimizer, self.position)

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        if self.checkpoints is None or (step := self.checkpoints.latest()) is None:
            return
        self.position = self.checkpoints.load(self.technique.layers, self.optimizer, step)
        self._start_sum(self.position.loss_sum)

    def _loss_so_far(self) -> float:
        """Return the summed loss of this epoch's rows, over all processes."""
        return self.world.first_says(self.world.sum(self._running))

    def _start_sum(self, value: float) -> None:
        """Let the first process alone carry what was summed before."""
        self._running.fill_(value if self.world.is_first else 0.0)

    def _check_finite(self, train_loss: float, validation_loss: float) -> None:
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            raise TrainError(
                f"the loss is not finite after epoch {self.position.epoch} (train {train_loss}, "
                f"validation {validation_loss}) with learning_rate {self.training.learning_rate}: "
                "lower it, or set clip_norm"
            )
