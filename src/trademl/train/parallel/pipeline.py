"""Model parallelism by layers: ``torch.distributed.pipelining``, with copies side by side.

Shape letters: B rows of a copy, D features, K targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
)
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from trademl.train.network_config import NetworkTraining
from trademl.train.networks import Layers
from trademl.train.parallel.ddp import copied
from trademl.train.parallel.distribution import Distribution
from trademl.train.parallel.technique import WeightedLoss, gradients, scaled

_SCHEDULES: dict[str, Any] = {
    "gpipe": ScheduleGPipe,
    "1f1b": Schedule1F1B,
    "interleaved_1f1b": ScheduleInterleaved1F1B,
}


def stages_of_rank(distribution: Distribution, rank: int) -> list[int]:
    """Return the numbers of the stages that a rank of a pipeline holds: one in every round."""
    return list(range(rank, distribution.n_stages, distribution.stages))


class PipelineParallel:
    """A rank's stages of a network; see `trademl.train.parallel.technique.Technique`.

    Parameters
    ----------
    layers : Layers
        Those of the rank's stages, on its device.
    stages : sequence of range
        The layers of every stage.
    mesh : DeviceMesh
        Dimensions ``dp`` and ``pp``.
    """

    def __init__(
        self,
        layers: Layers,
        training: NetworkTraining,
        mesh: DeviceMesh,
        distribution: Distribution,
        stages: Sequence[range],
    ) -> None:
        self.layers = layers
        self._pipeline, self._n_copies = mesh["pp"].get_group(), mesh["dp"].size()
        rank, n_ranks = mesh["pp"].get_local_rank(), mesh["pp"].size()
        self._is_first, self._is_last = rank == 0, rank == n_ranks - 1
        self.reads = self._is_first or self._is_last
        device = next(layers.parameters()).device
        found = [
            PipelineStage(
                part if self._n_copies == 1 else copied(part, mesh["dp"], in_pipeline=True),
                number,
                len(stages),
                device,
                group=self._pipeline,
            )
            for number in stages_of_rank(distribution, rank)
            for part in [_part(layers, stages[number], training)]
        ]
        self._schedule = _SCHEDULES[distribution.schedule](
            found if distribution.schedule == "interleaved_1f1b" else found[0],
            n_microbatches=distribution.microbatches,
            loss_fn=WeightedLoss(training.loss),
            scale_grads=False,  # the loss is a sum of parts
        )

    def step(self, features_BD: Tensor, target_BK: Tensor) -> Tensor:
        """Run the schedule; the rank of the last stage returns the loss, the others 0."""
        losses: list[Tensor] = []
        self._run(self._schedule.step, features_BD, scaled(target_BK, self._n_copies), losses)
        return self._sum(losses, target_BK) / self._n_copies

    def evaluate(self, features_BD: Tensor, target_BK: Tensor) -> Tensor:
        """Run the forwards alone."""
        losses: list[Tensor] = []
        self._run(self._schedule.eval, features_BD, target_BK, losses)
        return self._sum(losses, target_BK)

    def clip(self, norm: float) -> None:
        """Clip the gradient by the norm over all stages."""
        squared = get_total_norm(gradients(self.layers)) ** 2
        dist.all_reduce(squared, group=self._pipeline)
        clip_grads_with_norm_(self.layers.parameters(), norm, squared.sqrt())

    def _run(self, run: Any, features_BD: Tensor, target_BK: Tensor, losses: list[Tensor]) -> None:
        arguments = (features_BD,) if self._is_first else ()
        if self._is_last:
            run(*arguments, target=target_BK, losses=losses, return_outputs=False)
        else:
            run(*arguments)

    def _sum(self, losses: list[Tensor], target_BK: Tensor) -> Tensor:
        if not losses:
            return torch.zeros((), device=target_BK.device)
        return torch.stack([loss.detach() for loss in losses]).sum()


def _part(layers: Layers, numbers: range, training: NetworkTraining) -> Layers:
    """Return some of the layers, the very same modules, as a network of their own."""
    return Layers({n: layers.layers[str(n)] for n in numbers}, training.precision)
