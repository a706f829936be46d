"""Data parallelism over one copy of the network in shards: FSDP2's ``fully_shard``.

Shape letters: B rows of a rank, D features, K targets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from trademl.errors import TrainError
from trademl.train.network_config import NetworkTraining
from trademl.train.networks import Layers
from trademl.train.parallel.technique import WeightedLoss, gradients, scaled


class ShardedDataParallel:
    """A shard of every weight; see `trademl.train.parallel.technique.Technique`.

    A layer's weights are gathered just before it runs and given up after it, so a rank holds its
    share of weights, gradients and moments and one whole layer.

    Parameters
    ----------
    layers : Layers
        All of them, on the rank's device; they are sharded in place.
    mesh : DeviceMesh
        One dimension, of the ranks that share the network.
    """

    reads = True

    def __init__(self, layers: Layers, training: NetworkTraining, mesh: DeviceMesh) -> None:
        self.layers = layers
        self._n_ranks = mesh.size()
        self._n_pieces = training.accumulate
        self._loss = WeightedLoss(training.loss)
        shard(layers, mesh)

    def step(self, features_BD: Tensor, target_BK: Tensor) -> Tensor:
        """Add the gradient, a piece after another; ranks reduce it with the last piece."""
        total = torch.zeros((), device=features_BD.device)
        pieces = zip(
            features_BD.chunk(self._n_pieces),
            scaled(target_BK, self._n_ranks).chunk(self._n_pieces),
            strict=True,
        )
        for number, (features, target) in enumerate(pieces, start=1):
            _sharded(self.layers).set_requires_gradient_sync(number == self._n_pieces)
            loss = self._loss(self.layers(features), target)
            loss.backward()
            total += loss.detach()
        return total / self._n_ranks

    def evaluate(self, features_BD: Tensor, target_BK: Tensor) -> Tensor:
        """Return the rank's part of the loss."""
        with torch.no_grad():
            loss: Tensor = self._loss(self.layers(features_BD), target_BK)
        return loss

    def clip(self, norm: float) -> None:
        """Clip the gradient by the norm of all shards together."""
        found = get_total_norm(gradients(self.layers))
        total = found.full_tensor() if isinstance(found, DTensor) else found
        clip_grads_with_norm_(self.layers.parameters(), norm, total)


def shard(layers: Layers, mesh: DeviceMesh) -> None:
    """Divide every weight among the ranks of a mesh, in place."""
    for layer in layers.layers.values():
        fully_shard(layer, mesh=mesh)
    fully_shard(layers, mesh=mesh)


def _sharded(layers: Layers) -> FSDPModule:
    if not isinstance(layers, FSDPModule):
        raise TrainError("the network is not sharded: fully_shard must come first")
    return layers
