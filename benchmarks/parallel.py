"""Training in two processes, a pipeline and its formula, and reading beside DataLoader.

Shape letters: N rows, D features.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from harness import HERE, Benchmark, Measurement, alternate, main, ratio, timed
from parallel_ranks import SOLO, loss_jobs
from trademl.etl.recordio import write_recordio
from trademl.etl.row_source import RecordRows
from trademl.train.parallel.run_job import read_history, run_job
from trademl.train.parallel.stream import BatchOrder, BatchStream

BENCHMARK = Benchmark(
    name="parallel",
    goals={
        "loader_vs_dataloader": {"min": 5},
        "ddp2_vs_1": {"min": 1.6},
        "bubble_vs_formula": {"max": 1.15},
        "loss_diff_ddp": {"max": 1e-5},
        "loss_diff_fsdp": {"max": 1e-5},
        "loss_diff_pipeline": {"max": 1e-5},
    },
    libraries=("torch", "numpy"),
    does_not_show=(
        "Both processes share one machine of two cores, and with it caches and memory: two "
        "machines have more of these and a slower link.",
        "DataLoader reads rows that lie in memory already, the stream maps a file that is in the "
        "page cache: a disk is not shown.",
        "The stream keeps blocks of 16 neighbouring rows together, DataLoader shuffles every row.",
        "The bubble is that of two stages cut by hand to equal halves, eight microbatches, 1F1B.",
        "Indicators are not measured here: indicators_vs_pandas is not among the ratios.",
        "GPUs: see benchmarks/gpu.py and docs/scaling.md.",
    ),
)
BATCH = 1024
D = 605


def measure(quick: bool) -> Measurement:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loading, loaded_all = measure_loader(folder, quick)
        ranks = run_ranks(folder, quick)
        differences = loss_differences(folder)
    seconds = {**loading, **ranks["seconds"]}
    in_one = min(seconds["dataloader_0_workers"], seconds["dataloader_2_workers"])
    ratios = {
        "loader_vs_dataloader": ratio(in_one, seconds["stream"]),
        "ddp2_vs_1": ratio(seconds["one_process"], seconds["two_processes"]),
        "ddp2_vs_1_with_two_threads": ratio(seconds["two_threads"], seconds["two_processes"]),
        "bubble_vs_formula": ratio(seconds["pipeline_step"], ranks["formula"]),
        **differences,
    }
    notes = [
        f"stream: {loading['rows'] / seconds['stream']:,.0f} rows of {D} columns a second",
        f"bubble: {ranks['bubble']:.1%} of the step by the formula",
    ]
    del seconds["rows"]
    return Measurement(ratios, seconds, {"stream_shows_every_row_once": loaded_all}, notes)


# Reading


@dataclass(frozen=True)
class Rows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A map-style dataset as a tutorial writes it: rows in memory, by number."""

    features_ND: torch.Tensor
    label_N: torch.Tensor

    def __len__(self) -> int:
        return len(self.label_N)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.features_ND[number], self.label_N[number]


def measure_loader(folder: Path, quick: bool) -> tuple[dict[str, float], bool]:
    n = 10_000 if quick else 100_000
    rng = np.random.default_rng(0)
    features_ND = rng.standard_normal((n, D), dtype=np.float32)
    label_N = np.arange(n, dtype=np.float32)
    path = folder / "rows.recordio"
    write_recordio(path, features_ND, label_N)
    stream = BatchStream(RecordRows([path]), BatchOrder(n, BATCH, 16, seed=1))
    rows = Rows(torch.from_numpy(features_ND), torch.from_numpy(label_N))

    def dataloader(workers: int) -> float:
        loader = DataLoader(rows, BATCH, shuffle=True, num_workers=workers)
        return timed(lambda: sum(len(label) for _, label in loader))

    with stream.opened(epochs=1) as batches:
        shown = np.concatenate([real_labels(b.target_BK) for b in batches])
    seconds = alternate(
        {
            "stream": lambda: timed(lambda: sum(len(b) for b in whole_epoch(stream))),
            "dataloader_0_workers": lambda: dataloader(0),
            "dataloader_2_workers": lambda: dataloader(2),
        },
        rounds=1 if quick else 5,
    )
    found = {name: value for name, value in seconds.items() if value is not None}
    return {**found, "rows": float(n)}, bool((np.sort(shown) == label_N).all())


def whole_epoch(stream: BatchStream) -> Iterator[torch.Tensor]:
    with stream.opened(epochs=1) as batches:
        for batch in batches:
            yield batch.features_BD


def real_labels(target_BK: torch.Tensor) -> np.ndarray:
    return target_BK[target_BK[:, -1] > 0, 0].numpy()


# Two processes


def run_ranks(folder: Path, quick: bool) -> dict[str, object]:
    """Run ``parallel_ranks.py`` in two processes with a thread each, and return what it found."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(HERE / "parallel_ranks.py"), str(folder), *(["--quick"] if quick else [])]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    return json.loads((folder / "ranks.json").read_text())


def loss_differences(folder: Path) -> dict[str, float]:
    """Return the largest relative difference of any loss to that of one process."""
    jobs = loss_jobs(folder)
    run_job(jobs[SOLO])

    def curve(name: str) -> np.ndarray:
        history = read_history(jobs[name].folder)
        return np.array([(h["train_loss"], h["validation_loss"]) for h in history])

    alone = curve(SOLO)
    return {
        f"loss_diff_{name}": float(np.max(np.abs(curve(name) - alone) / alone))
        for name in jobs
        if name != SOLO
    }


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
