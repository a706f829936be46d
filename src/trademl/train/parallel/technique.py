"""What every technique of parallel training offers the loop, and the loss that all of them share.

Shape letters: B rows of a rank, K outputs.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from trademl.train.network_config import Loss
from trademl.train.networks import Layers


class Technique(Protocol):
    """One rank's part of a network in training.

    Parameters
    ----------
    layers : Layers
        What the rank holds; its parameters are the optimizer's.
    reads : bool
        Whether it needs rows: the middle stages of a pipeline do not.
    """

    layers: Layers
    reads: bool

    def step(self, features_BD: Tensor, target_BK: Tensor) -> Tensor:
        """Run forward and backward; add the gradient of the mean loss over the whole batch.

        Returns
        -------
        Tensor of shape ()
            This rank's part of the mean loss: the sum over all ranks is the loss of the batch.
        """

    def evaluate(self, features_BD: Tensor, target_BK: Tensor) -> Tensor:
        """Return this rank's part of the mean loss, and touch nothing."""

    def clip(self, norm: float) -> None:
        """Scale the gradient of the whole network down to a norm, where it is longer."""


class WeightedLoss(nn.Module):
    """The sum over rows of weight times loss; the last column of the target is the weight.

    Weights add up to 1 over all rows of a batch, on whichever ranks they lie and in whichever
    microbatch, so parts of the loss, and of its gradient, add up to those of the batch.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self._is_logistic = loss == "logistic"

    def forward(self, output_BK: Tensor, target_BK: Tensor) -> Tensor:
        wanted_BK, weight_B = target_BK[:, :-1], target_BK[:, -1]
        output_BK = output_BK.float()
        if self._is_logistic:
            loss_BK = functional.binary_cross_entropy_with_logits(
                output_BK, wanted_BK, reduction="none"
            )
        else:
            loss_BK = functional.mse_loss(output_BK, wanted_BK, reduction="none")
        return (loss_BK.mean(dim=1) * weight_B).sum()


def gradients(layers: nn.Module) -> list[Tensor]:
    """Return the gradients that are there."""
    return [p.grad for p in layers.parameters() if p.grad is not None]


def scaled(target_BK: Tensor, factor: int) -> Tensor:
    """Return the target with weights times a factor, to undo an average over as many ranks."""
    if factor == 1:
        return target_BK
    return torch.cat([target_BK[:, :-1], target_BK[:, -1:] * factor], dim=1)
