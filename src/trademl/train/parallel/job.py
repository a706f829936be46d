"""One training run, start to end, as each of its processes sees it.

Shape letters: D features, N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from trademl.errors import ConfigError, StoreError
from trademl.etl.parquet_spool import fill_spool, make_spool, needs_spool
from trademl.etl.row_source import RowSource, open_rows
from trademl.store.artifacts import write_atomically
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.networks import Embedding, Layers, build_layers
from trademl.train.parallel.checkpoints import Checkpoints
from trademl.train.parallel.costs import layer_costs
from trademl.train.parallel.ddp import DataParallel
from trademl.train.parallel.dims import ParallelDims, check_batch, parallel_dims
from trademl.train.parallel.distribution import Distribution
from trademl.train.parallel.fsdp import ShardedDataParallel
from trademl.train.parallel.loop import Trainer
from trademl.train.parallel.partition import partition
from trademl.train.parallel.pipeline import PipelineParallel, stages_of_rank
from trademl.train.parallel.position import Position
from trademl.train.parallel.run_files import CHECKPOINTS, JOB, SPOOL
from trademl.train.parallel.stream import BatchOrder, BatchStream
from trademl.train.parallel.technique import Technique
from trademl.train.parallel.world import World
from trademl.train.scaler import fit_network_scaler


@dataclass(frozen=True)
class NetworkJob:
    """All that a run needs to know.

    Parameters
    ----------
    columns : tuple of str
        Names of the features, D.
    train, validation : tuple of Path
        Files of a split, in order of time: see `trademl.etl.row_source.open_rows`.
    folder : Path
        Where checkpoints, history and model go; shared by all hosts.
    processes_per_host, hosts : int
    measure_steps : int
        Take so many steps and say how long they took, instead of training.
    """

    network: NetworkConfig
    training: NetworkTraining
    distribution: Distribution
    columns: tuple[str, ...]
    train: tuple[Path, ...]
    validation: tuple[Path, ...]
    folder: Path
    seed: int = 7
    processes_per_host: int = 1
    hosts: int = 1
    measure_steps: int = 0

    @property
    def feature_dim(self) -> int:
        """Features of a row, D."""
        return len(self.columns)

    def dims(self) -> ParallelDims:
        """Return the degrees of parallelism.

        Raises
        ------
        ConfigError
            If the world, the batch and the network do not fit together.
        """
        self.network.channels(self.feature_dim)
        dims = parallel_dims(self.distribution, processes=self.processes_per_host, hosts=self.hosts)
        check_batch(
            self.distribution,
            dims,
            batch_size=self.training.batch_size,
            accumulate=self.training.accumulate,
            n_layers=self.network.n_layers,
        )
        return dims

    def as_hyperparameters(self) -> dict[str, Any]:
        """Return what made the network, as JSON can hold it."""
        return {**asdict(self.training), **self.training.calibration(), "seed": self.seed}


def write_job(job: NetworkJob) -> Path:
    """Write a job into its folder and return the file.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    path = job.folder / JOB
    write_atomically(path, msgspec.json.encode(msgspec.to_builtins(job, enc_hook=str)))
    return path


def read_job(path: Path) -> NetworkJob:
    """Return the job that a file holds.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=NetworkJob, dec_hook=_decode)
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"{path} is no training job ({error}): start the run again") from error


def _decode(kind: Any, value: Any) -> Any:
    return kind(value)


def make_trainer(
    job: NetworkJob, world: World, *, report: Callable[[Position], None] = lambda _: None
) -> Trainer:
    """Return the trainer of one process; every process of the world must call it.

    Raises
    ------
    ConfigError
        If the world is not the job's.
    DataError
        If rows cannot be read, or there are none.
    """
    dims = job.dims()
    if dims.world != world.size:
        raise ConfigError(f"the job is for {dims.world} processes, {world.size} were started")
    train, validation = (_open(job, world, name) for name in ("train", "validation"))
    copy, _ = dims.coordinates(world.rank)
    technique = make_technique(job, dims, world, train)
    size = job.training.batch_size

    def stream(source: RowSource, order: BatchOrder) -> BatchStream:
        return BatchStream(
            source,
            order,
            part=copy,
            n_parts=dims.dp,
            device=world.device,
            is_read=technique.reads,
        )

    return Trainer(
        technique,
        job.training,
        stream(train, BatchOrder(len(train), size, job.training.block_rows, job.seed)),
        stream(validation, BatchOrder(len(validation), size)),
        world,
        Checkpoints(job.folder / CHECKPOINTS, world),
        report,
    )


def make_technique(
    job: NetworkJob, dims: ParallelDims, world: World, train: RowSource
) -> Technique:
    """Return this process's part of the network, divided as the job says."""
    stages = [range(job.network.n_layers)]
    mine = [0]
    if dims.pp > 1:
        costs = layer_costs(
            job.network,
            job.feature_dim,
            precision=job.training.precision,
            recompute=job.training.recompute,
        )
        stages = partition(costs, job.distribution)
        mine = stages_of_rank(job.distribution, dims.coordinates(world.rank)[1])
    layers = _layers(job, [n for stage in mine for n in stages[stage]], world, train)
    if dims.world == 1:
        return DataParallel(layers, job.training)
    mesh = dims.mesh(world.device.type)
    if dims.pp > 1:
        return PipelineParallel(layers, job.training, mesh, job.distribution, stages)
    if job.distribution.technique == "fsdp":
        return ShardedDataParallel(layers, job.training, mesh["dp"])
    return DataParallel(layers, job.training, mesh["dp"])


def _layers(job: NetworkJob, numbers: list[int], world: World, train: RowSource) -> Layers:
    """Return layers on the device, the first one with the scale of the training rows."""
    built: dict[int, nn.Module] = build_layers(
        job.network, job.feature_dim, numbers, seed=job.seed, recompute=job.training.recompute
    )
    if isinstance(embedding := built.get(0), Embedding):
        _set_scale(embedding, train)
    return Layers(built, job.training.precision).to(world.device)


def _set_scale(embedding: Embedding, train: RowSource) -> None:
    """Let the network standardise features by the training rows."""
    scaler = fit_network_scaler(train)
    embedding.mean_D.copy_(torch.from_numpy(scaler.mean_D))
    embedding.scale_D.copy_(torch.from_numpy(scaler.scale_D))


def _open(job: NetworkJob, world: World, name: str) -> RowSource:
    """Open a split; the processes of a host decode Parquet together first."""
    paths: tuple[Path, ...] = getattr(job, name)
    spool = job.folder / SPOOL / name
    if needs_spool(paths):
        if world.local_rank == 0:
            make_spool(paths, spool)
        world.wait()
        fill_spool(paths, spool, part=world.local_rank, n_parts=job.processes_per_host)
        world.wait()
    source = open_rows(paths, spool=spool, n_steps=job.network.n_steps)
    if source.feature_dim != job.feature_dim:
        raise ConfigError(
            f"{name} has {source.feature_dim} columns, the job names {job.feature_dim}"
        )
    return source
