"""Training on one GPU: rows a second, the share of its peak arithmetic, and memory by the plan.

Skipped, with the reason, where torch sees no CUDA GPU.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from harness import Benchmark, Measurement, main, ratio
from trademl.etl.recordio import write_recordio
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.parallel.devices import device_here, size_of
from trademl.train.parallel.distribution import parse_distribution
from trademl.train.parallel.job import NetworkJob, make_trainer
from trademl.train.parallel.measure import measure_steps
from trademl.train.parallel.plan import make_plan
from trademl.train.parallel.world import alone

BENCHMARK = Benchmark(
    name="gpu",
    goals={},
    libraries=("torch", "numpy"),
    does_not_show=(
        "One GPU, so nothing is sent between devices: docs/scaling.md is about several.",
        "Peaks are those of data sheets for dense bfloat16; clocks under load are lower.",
        "Operations of matrix products and attention are counted, nothing else.",
    ),
)
NETWORK = NetworkConfig("transformer", n_steps=256, width=1024, depth=12, heads=16)
TRAINING = NetworkTraining(batch_size=64, precision="bfloat16")
CHANNELS = 40
RATIOS = ("share_of_peak_flops", "stream_vs_step", "memory_vs_plan")
# Dense bfloat16, in flop a second, from data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}


def measure(quick: bool) -> Measurement:
    if not torch.cuda.is_available():
        reason = "skipped: torch sees no CUDA GPU on this machine"
        return Measurement(dict.fromkeys(RATIOS), {}, notes=[reason])
    torch.set_float32_matmul_precision("high")
    network = replace(NETWORK, depth=2) if quick else NETWORK
    steps = 3 if quick else 20
    with tempfile.TemporaryDirectory() as name:
        job = make_job(Path(name), network)
        trainer = make_trainer(job, alone())
        step = measure_steps(trainer, steps)
        with trainer.train.opened() as batches:
            trainer.step(next(batches))
            torch.cuda.synchronize()
            began = time.perf_counter()
            for batch in islice(batches, steps):
                trainer.step(batch)
            torch.cuda.synchronize()
            streamed_s = (time.perf_counter() - began) / steps
    plan = make_plan(network, TRAINING, job.feature_dim, n_processes=1, device=device_here(1))
    device = torch.cuda.get_device_name()
    peak = next((flops for known, flops in PEAKS.items() if known in device), None)
    rows = TRAINING.batch_size
    used = plan.flops_per_row * rows / streamed_s
    planned = plan.candidates[0].n_bytes
    notes = [
        f"{device}: {rows / streamed_s:,.0f} rows a second, {used / 1e12:.1f} Tflop/s",
        f"memory: {size_of(step.peak_bytes or 0)} held, {size_of(planned)} planned",
    ]
    if peak is None:
        notes.append(f"the peak of {device} is not known here: its share is not given")
    ratios = {
        "share_of_peak_flops": None if peak is None else used / peak,
        "stream_vs_step": ratio(streamed_s, step.step_s),
        "memory_vs_plan": ratio(step.peak_bytes, planned),
    }
    return Measurement(ratios, {"step": step.step_s, "step_streamed": streamed_s}, notes=notes)


def make_job(folder: Path, network: NetworkConfig) -> NetworkJob:
    d = network.n_steps * CHANNELS
    rng = np.random.default_rng(0)
    paths = {}
    for name, n in (("train", 2048), ("validation", 64)):
        paths[name] = folder / f"{name}.recordio"
        features_ND = rng.standard_normal((n, d), dtype=np.float32)
        write_recordio(paths[name], features_ND, rng.integers(0, 2, n).astype(np.float32))
    return NetworkJob(
        network=network,
        training=TRAINING,
        distribution=parse_distribution("ddp"),
        columns=tuple(f"x{i}" for i in range(d)),
        train=(paths["train"],),
        validation=(paths["validation"],),
        folder=folder / "run",
    )


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
