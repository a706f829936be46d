"""Where a run stands: what a checkpoint keeps beside weights and moments."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class EpochLoss:
    """One epoch: mean losses per row, and how fast it went with everything counted."""

    epoch: int
    train_loss: float
    validation_loss: float
    rows_per_s: float


@dataclass(frozen=True)
class Position:
    """The next batch, and all that decides when to stop.

    Parameters
    ----------
    epoch, number : int
        The batch that comes next.
    step : int
        Steps taken.
    loss_sum : float
        Summed loss of this epoch's rows so far.
    history : tuple of EpochLoss
    best_step : int, optional
        The step after which the validation loss was lowest.
    best_loss : float, optional
    idle : int
        Epochs since the last improvement.
    """

    epoch: int = 0
    number: int = 0
    step: int = 0
    loss_sum: float = 0.0
    history: tuple[EpochLoss, ...] = ()
    best_step: int | None = None
    best_loss: float | None = None
    idle: int = 0

    def after_epoch(self, found: EpochLoss, *, tolerance: float) -> Position:
        """Return the position at the start of the next epoch.

        The lowest loss is kept however small the gain; patience is renewed only by a gain of at
        least ``tolerance``, relative to the lowest so far.
        """
        best, loss = self.best_loss, found.validation_loss
        is_best = best is None or loss < best
        is_gain = best is None or best - loss >= tolerance * abs(best)
        return replace(
            self,
            epoch=self.epoch + 1,
            number=0,
            loss_sum=0.0,
            history=(*self.history, found),
            best_step=self.step if is_best else self.best_step,
            best_loss=loss if is_best else best,
            idle=0 if is_gain else self.idle + 1,
        )
