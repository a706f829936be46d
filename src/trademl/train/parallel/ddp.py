"""Data parallelism over whole copies of the network: `DistributedDataParallel`, or one process.

Shape letters: B rows of a rank, D features, K targets.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from trademl.train.network_config import NetworkTraining
from trademl.train.networks import Layers
from trademl.train.parallel.technique import WeightedLoss, scaled


class DataParallel:
    """A whole copy of the network; see `trademl.train.parallel.technique.Technique`.

    Parameters
    ----------
    layers : Layers
        All of them, on the rank's device.
    mesh : DeviceMesh, optional
        One dimension, of the ranks that hold copies; None where there is one process.
    """

    reads = True

    def __init__(
        self, layers: Layers, training: NetworkTraining, mesh: DeviceMesh | None = None
    ) -> None:
        self.layers = layers
        self._n_copies = mesh.size() if mesh else 1
        self._n_pieces = training.accumulate
        self._loss = WeightedLoss(training.loss)
        self._network = copied(layers, mesh) if mesh else layers

    def step(self, features_BD: Tensor, target_BK: Tensor) -> Tensor:
        """Add the gradient, a piece after another; ranks average with the last piece."""
        total = torch.zeros((), device=features_BD.device)
        # DDP averages the ranks' gradients, which are parts of a sum
        pieces = zip(
            features_BD.chunk(self._n_pieces),
            scaled(target_BK, self._n_copies).chunk(self._n_pieces),
            strict=True,
        )
        for number, (features, target) in enumerate(pieces, start=1):
            with self._without_sync() if number < self._n_pieces else nullcontext():
                loss = self._loss(self._network(features), target)
                loss.backward()
            total += loss.detach()
        return total / self._n_copies

    def evaluate(self, features_BD: Tensor, target_BK: Tensor) -> Tensor:
        """Return the rank's part of the loss."""
        with torch.inference_mode():
            loss: Tensor = self._loss(self.layers(features_BD), target_BK)
        return loss

    def clip(self, norm: float) -> None:
        """Clip the gradient, which is the same on every rank."""
        clip_grad_norm_(self.layers.parameters(), norm)

    def _without_sync(self) -> AbstractContextManager[None]:
        if isinstance(self._network, DistributedDataParallel):
            return self._network.no_sync()
        return nullcontext()


def copied(
    network: nn.Module, mesh: DeviceMesh, *, in_pipeline: bool = False
) -> DistributedDataParallel:
    """Return a network whose gradient is averaged over the ranks of a mesh after each backward.

    Parameters
    ----------
    in_pipeline : bool
        Several forwards may come before a backward. DDP would put its buckets in the order of the
        first backward that it sees, and fail, unless it is told to look for unused weights.
    """
    with warnings.catch_warnings():
        # its successor, forward_sync_buffers, is not there before torch 2.13
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            network,
            process_group=mesh.get_group(),
            find_unused_parameters=in_pipeline,
            broadcast_buffers=False,  # the scale of features is the same on all, and stays
            gradient_as_bucket_view=True,
        )
