"""Tuning: the bundled ten-trial job on 100,000 rows of 605 features.

Shape letters: N rows, D features.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np

from harness import Benchmark, Measurement, main, timed
from trademl.etl.dataset import Split
from trademl.train.search_space import parse_tuning_config
from trademl.train.tuning import Search, tune

N_ROWS, N_HELD_OUT, D = 100_000, 20_000, 605
N_LAGS = 600
LAGS_IN_SIGNAL = (1, 30, 300)
SEED = 7
BENCHMARK = Benchmark(
    name="tune",
    goals={"tune10_s": {"max": 30}},
    libraries=("numpy", "numba", "torch", "optuna"),
    does_not_show=(
        "Rows are windows of 600 lags over a seeded random walk, each relative to its own price, "
        "and five quote columns: as correlated as real ones. Labels follow three of the lags.",
        "tune10_s is seconds, not a ratio: a search of ten trials (the bundled tuning.json: "
        "Bayesian, two at a time, at most 15 epochs each), models and database written.",
        "Reading the dataset and importing libraries are not within the time; starting worker "
        "processes, where the search starts any, is.",
    ),
)


def measure(quick: bool) -> Measurement:
    n_rows, rounds = (4_000, 1) if quick else (N_ROWS, 3)
    train = make_split(n_rows, seed=1)
    validation = make_split(min(n_rows, N_HELD_OUT), seed=2)
    searches: list[Search] = []
    seconds = sorted(
        timed(lambda: searches.append(search(train, validation))) for _ in range(rounds)
    )
    first, *others = searches
    objectives = [trial.objective for trial in first.trials]
    checks = {
        "ten_trials_with_an_objective": len([o for o in objectives if o is not None]) == 10,
        "better_than_chance": best_auc(first) > 0.6,
        "repeats": all([t.objective for t in s.trials] == objectives for s in others),
    }
    median = seconds[len(seconds) // 2]
    return Measurement({"tune10_s": median}, {"tune": median}, checks)


def search(train: Split, validation: Split) -> Search:
    config = parse_tuning_config(
        json.loads((files("trademl") / "sample" / "tuning.json").read_bytes())
    )
    with tempfile.TemporaryDirectory() as folder:
        return tune(
            train,
            validation,
            config,
            seed=SEED,
            storage=f"sqlite:///{folder}/ledger.db",
            study_name="benchmark",
            folder=Path(folder),
        )


def best_auc(found: Search) -> float:
    return max(trial.metrics.get("validation:roc_auc_score") or 0.0 for trial in found.trials)


def make_split(n: int, *, seed: int) -> Split:
    """Return windows over one random walk, every row two steps after the one before."""
    rng = np.random.default_rng(seed)
    price = np.cumsum(rng.normal(0.0, 0.5, 2 * n + N_LAGS))
    at_N = N_LAGS + 2 * np.arange(n)
    windows = np.lib.stride_tricks.sliding_window_view(price, N_LAGS)[at_N - N_LAGS]
    features_ND = np.empty((n, D), np.float32)
    features_ND[:, :5] = rng.normal(0.0, 0.5, (n, 5))
    np.subtract(windows, price[at_N][:, None], out=features_ND[:, 5:], casting="same_kind")
    signal_N = np.zeros(n)
    for lag in LAGS_IN_SIGNAL:
        change_N = features_ND[:, D - lag]
        signal_N += change_N / change_N.std()
    label_N = (signal_N + rng.logistic(0.0, 1.0, n) > 0).astype(np.float32)
    key_N = np.arange(n)
    return Split(features_ND, label_N, key_N, key_N, key_N + 1, label_N.astype(np.float64))


if __name__ == "__main__":
    sys.exit(main(BENCHMARK, measure))
