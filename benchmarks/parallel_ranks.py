"""What `parallel.py` runs in two processes at once: copies, a pipeline, and loss curves.

Started by torchrun with OMP_NUM_THREADS=1. The first process writes ``ranks.json``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.distributed.device_mesh import DeviceMesh

from trademl.etl.recordio import write_recordio
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.networks import Layers, build_layers
from trademl.train.parallel.ddp import DataParallel
from trademl.train.parallel.dims import ParallelDims
from trademl.train.parallel.distribution import parse_distribution
from trademl.train.parallel.job import NetworkJob
from trademl.train.parallel.pipeline import PipelineParallel
from trademl.train.parallel.run_job import run_job
from trademl.train.parallel.schedules import bubble_share
from trademl.train.parallel.technique import Technique
from trademl.train.parallel.world import World, joined

# Intraday: few indicators on an hour of minute bars, many rows, a small network.
ALICE = NetworkConfig("temporal_convolution", n_steps=60, width=32, depth=5)
ALICE_D, ALICE_BATCH = 60 * 6, 1024
# Allocation: a large encoder over hourly snapshots, one that is worth cutting.
DIANA = NetworkConfig("transformer", n_steps=32, width=768, depth=4, heads=8)
DIANA_D, MICROBATCHES, ROWS = 32 * 40, 16, 4
ROUNDS = 5
SOLO = "one_process"


def main(folder: Path, quick: bool) -> None:
    with joined() as world:
        copies = measure_copies(world, quick)
        pipeline = measure_pipeline(world, quick)
        jobs = loss_jobs(folder)
        if world.is_first:
            write_loss_rows(folder)
        world.wait()
        for name, job in jobs.items():
            if name != SOLO:
                run_job(job, world)
        if world.is_first:
            found = {"seconds": {**copies, "pipeline_step": pipeline["step"]}, **pipeline}
            (folder / "ranks.json").write_text(json.dumps(found))


def median_seconds(
    world: World, sides: dict[str, Callable[[], None]], rounds: int
) -> dict[str, float]:
    """Return the median seconds of each side, run in turn; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            world.wait()
            began = time.perf_counter()
            sides[name]()
            world.wait()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def step(technique: Technique, features: torch.Tensor, target: torch.Tensor) -> None:
    for weight in technique.layers.parameters():
        weight.grad = None
    technique.step(features, target)
    technique.clip(1.0)


def batch(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(n, d, generator=generator)
    label = (torch.rand(n, 1, generator=generator) < 0.5).float()
    return features, torch.cat([label, torch.full((n, 1), 1.0 / n)], dim=1)


# Copies


def measure_copies(world: World, quick: bool) -> dict[str, float]:
    """Time steps of one batch: by one process, by one with two threads, by two processes."""
    mesh = ParallelDims(2, 1).mesh("cpu")["dp"]
    training, steps = NetworkTraining(), 1 if quick else 4
    alone = DataParallel(layers_of(ALICE, ALICE_D, range(ALICE.n_layers)), training)
    both = DataParallel(layers_of(ALICE, ALICE_D, range(ALICE.n_layers)), training, mesh)
    features, target = batch(ALICE_BATCH, ALICE_D)
    half = slice(world.rank * ALICE_BATCH // 2, (world.rank + 1) * ALICE_BATCH // 2)

    def one_process() -> None:
        if world.is_first:
            for _ in range(steps):
                step(alone, features, target)

    def two_threads() -> None:
        torch.set_num_threads(2)
        one_process()
        torch.set_num_threads(1)

    def two_processes() -> None:
        for _ in range(steps):
            step(both, features[half], target[half])

    sides = {
        "one_process": one_process,
        "two_threads": two_threads,
        "two_processes": two_processes,
    }
    return median_seconds(world, sides, 1 if quick else ROUNDS)


# A pipeline


def measure_pipeline(world: World, quick: bool) -> dict[str, float]:
    """Time a 1F1B step, and each stage on its own while the other process does the same."""
    config = replace(DIANA, width=192) if quick else DIANA
    microbatches = 4 if quick else MICROBATCHES
    cut = config.depth // 2 + 1
    distribution = parse_distribution(
        {"pipeline": {"stages": 2, "microbatches": microbatches, "split_at": [cut]}}
    )
    stages = [range(cut), range(cut, config.n_layers)]
    layers = layers_of(config, DIANA_D, stages[world.rank])
    mesh: DeviceMesh = ParallelDims(1, 2).mesh("cpu")
    pipeline = PipelineParallel(layers, NetworkTraining(), mesh, distribution, stages)
    features, target = batch(ROWS * microbatches, DIANA_D)

    def run_pipeline() -> None:
        for weight in layers.parameters():
            weight.grad = None
        pipeline.step(features, target)

    def run_stage() -> None:
        for weight in layers.parameters():
            weight.grad = None
        for number in range(microbatches):
            rows = slice(ROWS * number, ROWS * (number + 1))
            x = features[rows]
            if world.rank:
                x = torch.randn(ROWS, config.n_steps, config.width, requires_grad=True)
            layers(x).sum().backward()

    slowest: list[float] = []
    busy: dict[str, list[float]] = {"step": [], "stages": []}

    def counted(name: str, run: Callable[[], None]) -> None:
        began = time.process_time()
        run()
        busy[name].append(world.largest(time.process_time() - began))

    def timed_stage() -> None:
        began = time.perf_counter()
        counted("stages", run_stage)
        slowest.append(world.largest((time.perf_counter() - began) / microbatches))

    sides = {"step": lambda: counted("step", run_pipeline), "stages": timed_stage}
    found = median_seconds(world, sides, 1 if quick else ROUNDS)
    shape = {"n_ranks": 2, "stages_per_rank": 1, "microbatches": microbatches}
    return {
        "step": found["step"],
        "formula": statistics.median(slowest[1:]) * (microbatches + 1),
        "bubble": bubble_share(**shape),
        "processor_vs_alone": statistics.median(busy["step"][1:])
        / statistics.median(busy["stages"][1:]),
    }


def layers_of(config: NetworkConfig, d: int, numbers: range) -> Layers:
    return Layers(build_layers(config, d, numbers, seed=1)).train()


# Losses


def loss_jobs(folder: Path) -> dict[str, NetworkJob]:
    """Return the same training, alone and divided in three ways."""
    config = NetworkConfig("transformer", n_steps=8, width=32, depth=4)
    spellings = {
        SOLO: "ddp",
        "ddp": "ddp",
        "fsdp": "fsdp",
        "pipeline": {"pipeline": {"stages": 2, "microbatches": 4}},
    }
    return {
        name: NetworkJob(
            network=config,
            training=NetworkTraining(epochs=3, batch_size=128, tolerance=0.0),
            distribution=parse_distribution(spelling),
            columns=tuple(f"x{i}" for i in range(32)),
            train=(folder / "train.recordio",),
            validation=(folder / "validation.recordio",),
            folder=folder / name,
            processes_per_host=1 if name == SOLO else 2,
        )
        for name, spelling in spellings.items()
    }


def write_loss_rows(folder: Path) -> None:
    for name, n, seed in (("train", 3000, 1), ("validation", 500, 2)):
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((n, 32), dtype=np.float32)
        label = rng.random(n) < 1.0 / (1.0 + np.exp(-features[:, :5].sum(axis=1)))
        write_recordio(folder / f"{name}.recordio", features, label.astype(np.float32))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--quick" in sys.argv)
