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
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from harness import HERE, Benchmark, Measurement, alternate, main, ratio, timed
from parallel_ranks import SOLO, loss_jobs
from trademl.etl.recordio import write_recordio
from trademl.etl.row_source import RecordRows
from trademl.etl.snapshot_indicators import HORIZONS, SnapshotRecipe, snapshot_indicators
from trademl.market.bars import Bars
from trademl.market.quotes import NS_PER_S
from trademl.market.snapshots import Snapshots, align
from trademl.train.parallel.run_job import read_history, run_job
from trademl.train.parallel.stream import BatchOrder, BatchStream

BENCHMARK = Benchmark(
    name="parallel",
    goals={
        "loader_vs_dataloader": {"min": 5},
        "ddp2_vs_1": {"min": 1.6},
        "bubble_vs_formula": {"max": 1.15},
        "indicators_vs_pandas": {"min": 5},
        "indicators_s": {"max": 10},
        "loss_diff_ddp": {"max": 1e-5},
        "loss_diff_fsdp": {"max": 1e-5},
        "loss_diff_pipeline": {"max": 1e-5},
    },
    libraries=("torch", "numpy", "pandas"),
    does_not_show=(
        "Both processes share one machine of two cores, and with it caches and memory: two "
        "machines have more of these and a slower link.",
        "DataLoader reads rows that lie in memory already, the stream maps a file that is in the "
        "page cache: a disk is not shown.",
        "The stream keeps blocks of 16 neighbouring rows together, DataLoader shuffles every row.",
        "The bubble is that of two stages cut by hand to equal halves, 16 microbatches, 1F1B.",
        "pandas makes the same 57 indicators with rolling windows, one asset after another, in the "
        "one thread that it has; trademl has two. Assets trade at the same hours.",
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
    indicators, is_equal = measure_indicators(quick)
    seconds = {**loading, **ranks["seconds"], **indicators}
    in_one = min(seconds["dataloader_0_workers"], seconds["dataloader_2_workers"])
    ratios = {
        "loader_vs_dataloader": ratio(in_one, seconds["stream"]),
        "ddp2_vs_1": ratio(seconds["one_process"], seconds["two_processes"]),
        "ddp2_vs_1_with_two_threads": ratio(seconds["two_threads"], seconds["two_processes"]),
        "bubble_vs_formula": ratio(seconds["pipeline_step"], ranks["formula"]),
        "pipeline_processor_vs_alone": ranks["processor_vs_alone"],
        "indicators_vs_pandas": ratio(seconds["pandas"], seconds["indicators"]),
        "indicators_s": seconds["indicators"],
        **differences,
    }
    notes = [
        f"stream: {loading['rows'] / seconds['stream']:,.0f} rows of {D} columns a second",
        f"bubble: {ranks['bubble']:.1%} of the step by the formula",
        "pipeline_processor_vs_alone: processor time of a rank in a step over that of its stage "
        "alone, which other programs on the machine do not move",
    ]
    del seconds["rows"]
    checks = {"stream_shows_every_row_once": loaded_all, "indicators_equal_pandas": is_equal}
    return Measurement(ratios, seconds, checks, notes)


# Indicators


def measure_indicators(quick: bool) -> tuple[dict[str, float], bool]:
    """Return the seconds of both sides on eight assets, and whether they agree to a thousandth."""
    n = 10_000 if quick else 20 * 260 * 24  # twenty years of weekdays, day and night
    snapshots = align({f"asset {a}": walk(n, seed=a) for a in range(8)})
    ours = snapshot_indicators(snapshots)  # compiles
    theirs = pandas_indicators(snapshots)
    is_equal = np.allclose(ours, theirs, rtol=1e-3, atol=1e-4, equal_nan=True)
    seconds = alternate(
        {
            "indicators": lambda: timed(lambda: snapshot_indicators(snapshots)),
            "pandas": lambda: timed(lambda: pandas_indicators(snapshots)),
        },
        rounds=1 if quick else 3,
    )
    return {name: value for name, value in seconds.items() if value is not None}, is_equal


def walk(n: int, seed: int) -> Bars:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, n)))
    open_ = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(open_, close) * (1 + 0.001 * rng.random(n))
    low = np.minimum(open_, close) * (1 - 0.001 * rng.random(n))
    ts = np.arange(n) * 3600 * NS_PER_S
    return Bars(ts, ts + 3600 * NS_PER_S, open_, high, low, close, np.zeros(n))


def pandas_indicators(snapshots: Snapshots) -> np.ndarray:
    own = [pandas_asset(bars) for bars in snapshots.bars]
    found = []
    for table in own:
        columns = dict(table.items())
        for h in HORIZONS:
            for name in ("momentum", "volatility"):
                mean = sum(other[f"{name}_{h}"] for other in own) / len(own)
                columns[f"relative_{name}_{h}"] = table[f"{name}_{h}"] - mean
        found.append(pd.DataFrame(columns)[SnapshotRecipe().names].to_numpy(np.float32))
    return np.stack(found, axis=1)


def pandas_asset(bars: Bars) -> pd.DataFrame:
    close, high, low = (pd.Series(v) for v in (bars.close, bars.high, bars.low))
    before = close.shift()
    step, r = close.diff(), np.log(close / before)
    true = np.maximum(high, before) - np.minimum(low, before)
    columns = {"return": r, "bar_range": (high - low) / close}
    for h in HORIZONS:
        window, lowest, highest = close.rolling(h), low.rolling(h).min(), high.rolling(h).max()
        figures = {
            "momentum": np.log(close / close.shift(h)),
            "volatility": r.rolling(h).std(),
            "sma_gap": close / window.mean() - 1,
            "zscore": (close - window.mean()) / window.std(),
            "rsi": step.clip(lower=0).rolling(h).sum() / step.abs().rolling(h).sum(),
            "stochastic": (close - lowest) / (highest - lowest),
            "drawdown": close / highest - 1,
            "range": true.rolling(h).mean() / close,
            "downside": (r.clip(upper=0) ** 2).rolling(h).sum() / (r**2).rolling(h).sum(),
        }
        enough = close.shift(h).notna()
        columns |= {f"{name}_{h}": figure.where(enough) for name, figure in figures.items()}
    return pd.DataFrame(columns)


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
