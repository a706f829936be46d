"""One object that turns degrees into meshes of ranks, and refuses impossible ones.

``dp`` is how many copies divide the rows, ``pp`` how many ranks divide the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trademl.errors import ConfigError
from trademl.train.parallel.distribution import Distribution, Placement
from trademl.train.parallel.schedules import check_schedule

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class ParallelDims:
    """How many ranks each kind of parallelism has; made by `parallel_dims`."""

    dp: int
    pp: int
    placement: Placement = "cluster"

    @property
    def world(self) -> int:
        """All ranks."""
        return self.dp * self.pp

    def coordinates(self, rank: int) -> tuple[int, int]:
        """Return which copy a rank belongs to, and which part of the pipeline it holds.

        Examples
        --------
        >>> [ParallelDims(2, 2).coordinates(rank) for rank in range(4)]
        [(0, 0), (0, 1), (1, 0), (1, 1)]
        """
        if self.placement == "cluster":
            return rank // self.pp, rank % self.pp
        return rank % self.dp, rank // self.dp

    def mesh(self, device: str) -> DeviceMesh:
        """Return the mesh of all ranks, its dimensions named ``dp`` and ``pp``.

        Every rank must call it, once: it makes process groups.
        """
        from torch.distributed.device_mesh import init_device_mesh

        if self.placement == "cluster":
            return init_device_mesh(device, (self.dp, self.pp), mesh_dim_names=("dp", "pp"))
        return init_device_mesh(device, (self.pp, self.dp), mesh_dim_names=("pp", "dp"))


def parallel_dims(distribution: Distribution, *, processes: int, hosts: int = 1) -> ParallelDims:
    """Return the degrees of a world.

    Parameters
    ----------
    processes : int
        On each host.

    Raises
    ------
    ConfigError
        If the stages do not divide the world, or if copies are needed and not asked for.
    """
    world, pp = processes * hosts, distribution.stages
    if world % pp:
        fitting = max(pp, processes - processes % pp)
        more_hosts = f", or {pp} hosts" if hosts * processes < pp and processes == 1 else ""
        raise ConfigError(
            f"{hosts} host{'s' * (hosts > 1)} with processes_per_host {processes} make a world of "
            f"{world}, which {pp} partitions do not divide: set processes_per_host (--nproc) to "
            f"{fitting} or another multiple of {pp}{more_hosts}"
        )
    if world > pp and not distribution.replicate:
        raise ConfigError(
            f"{pp} partitions leave {world - pp} of {world} processes without work: set ddp "
            f"(replicate) to true, or --nproc to {pp}"
        )
    return ParallelDims(world // pp, pp, distribution.placement)


def check_batch(
    distribution: Distribution,
    dims: ParallelDims,
    *,
    batch_size: int,
    accumulate: int,
    n_layers: int,
) -> None:
    """Refuse a batch that cannot be dealt out evenly, or a network of too few layers.

    Raises
    ------
    ConfigError
        The message offers the nearest batch that can.
    """
    pieces = distribution.microbatches if dims.pp > 1 else accumulate
    what = "microbatches" if dims.pp > 1 else "accumulate"
    if batch_size % (dims.dp * pieces):
        step = dims.dp * pieces
        fitting = max(step, batch_size // step * step)
        raise ConfigError(
            f"batch_size {batch_size} cannot be dealt out evenly to {dims.dp} copies with {what} "
            f"{pieces}: set batch_size to {fitting} or another multiple of {step}"
        )
    if dims.pp == 1:
        return
    if accumulate > 1:
        raise ConfigError(
            f"accumulate is {accumulate}, expected 1 with a pipeline: its microbatches do the same"
        )
    check_schedule(
        distribution.schedule,
        n_ranks=dims.pp,
        stages_per_rank=distribution.stages_per_rank,
        microbatches=distribution.microbatches,
    )
    if distribution.n_stages > n_layers:
        raise ConfigError(
            f"{distribution.n_stages} stages for a network of {n_layers} layers: take fewer "
            "stages, or a deeper network"
        )
    if distribution.split_at and distribution.split_at[-1] >= n_layers:
        raise ConfigError(
            f"split_at names layer {distribution.split_at[-1]}, the last layer is {n_layers - 1}"
        )
