"""A small training job, and a program that runs several of them in one world of processes.

``torchrun parallel_cases.py FOLDER NAME ...`` trains the named cases one after the other: starting
processes costs seconds, training so small a network does not.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from trademl.etl.recordio import write_recordio
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.parallel.distribution import parse_distribution
from trademl.train.parallel.job import NetworkJob

D = 19
NETWORK = NetworkConfig("transformer", n_steps=4, width=16, depth=4, heads=2)
# 500 rows are no multiple of 64: the last batch is filled up
TRAINING = NetworkTraining(epochs=3, batch_size=64, learning_rate=6e-3, tolerance=0.0)
PIPELINE = {"stages": 2, "microbatches": 4}

# name -> (distribution, settings of the training that must change no loss)
CASES = {
    "alone": ("ddp", {}),
    "ddp": ("ddp", {}),
    "ddp_in_pieces": ("ddp", {"accumulate": 4, "recompute": True}),
    "fsdp": ("fsdp", {}),
    "fsdp_in_pieces": ("fsdp", {"accumulate": 2, "recompute": True}),
    "1f1b": ({"pipeline": PIPELINE}, {}),
    "spread": ({"pipeline": {**PIPELINE, "placement": "spread"}}, {}),
    "gpipe": ({"pipeline": {**PIPELINE, "schedule": "gpipe"}}, {"recompute": True}),
    "interleaved": ({"pipeline": {**PIPELINE, "schedule": "interleaved_1f1b"}}, {}),
    "four_stages": ({"pipeline": {"stages": 4, "microbatches": 8}}, {}),
    "short": ("fsdp", {"epochs": 1}),
    "fsdp_low": ("fsdp", {"precision": "bfloat16"}),
    "1f1b_low": ({"pipeline": PIPELINE}, {"precision": "bfloat16"}),
}


def write_rows(folder: Path) -> None:
    """Write training and validation rows whose label a network can learn."""
    for name, n, seed in (("train", 500, 1), ("validation", 150, 2)):
        rng = np.random.default_rng(seed)
        features = rng.normal(5.0, 3.0, (n, D)).astype(np.float32)
        logit = (features[:, :6] - 5.0).sum(axis=1) / 1.5
        label = rng.random(n) < 1.0 / (1.0 + np.exp(-logit))
        write_recordio(folder / f"{name}.recordio", features, label.astype(np.float32))


def job_of(folder: Path, name: str, *, processes: int) -> NetworkJob:
    distribution, settings = CASES[name]
    return NetworkJob(
        network=NETWORK,
        training=replace(TRAINING, **settings),
        distribution=parse_distribution(distribution),
        columns=tuple(f"x{i}" for i in range(D)),
        train=(folder / "train.recordio",),
        validation=(folder / "validation.recordio",),
        folder=folder / name,
        processes_per_host=processes,
    )


def main(folder: Path, names: list[str]) -> None:
    from trademl.train.parallel.run_job import run_job
    from trademl.train.parallel.world import joined

    with joined() as world:
        for name in names:
            run_job(job_of(folder, name, processes=world.size), world)
            world.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
