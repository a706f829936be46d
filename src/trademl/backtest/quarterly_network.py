"""The biggest model of a quarterly allocation: a network that sees steps of an asset's past.

Shape letters: N rows, K indicators, S steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.quarterly import Fit, Fitted, Rows
from trademl.errors import require_extra
from trademl.etl.recordio import RecordWriter
from trademl.ports import Progress, Silent
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.parallel.distribution import Distribution

if TYPE_CHECKING:
    from trademl.train.network_file import NetworkModel

_AT_ONCE = 4_096


def network_fit(
    network: NetworkConfig,
    training: NetworkTraining,
    distribution: Distribution,
    *,
    step_days: int,
    seed: int,
    environment: Mapping[str, str],
    progress: Progress | None = None,
) -> Fit:
    """Return a way to fit the strategy's network, in as many processes as the distribution says.

    Parameters
    ----------
    step_days : int
        Days with rows between the ``network.n_steps`` steps; the last one is the row's own day.
    """
    require_extra("train")

    def fit(rows: Rows, trains_N: NDArray[np.bool_], validates_N: NDArray[np.bool_]) -> Fitted:
        from trademl.train.network_file import load_network
        from trademl.train.parallel.job import NetworkJob
        from trademl.train.parallel.launch import launch
        from trademl.train.parallel.run_files import MODEL

        step_NS = past_rows(rows, network.n_steps, step_days)
        mean, scale = rows.target_N[trains_N].mean(), rows.target_N[trains_N].std() or 1.0
        with tempfile.TemporaryDirectory(prefix="trademl-network-") as name:
            folder = Path(name)
            for part, is_in in (("train", trains_N), ("validation", validates_N)):
                _write(folder / f"{part}.recordio", rows, step_NS, is_in, mean, scale)
            job = NetworkJob(
                network=network,
                training=training,
                distribution=distribution,
                columns=step_columns(rows.columns, network.n_steps, step_days),
                train=(folder / "train.recordio",),
                validation=(folder / "validation.recordio",),
                folder=folder,
                seed=seed,
                processes_per_host=distribution.processes_per_host or 1,
            )
            launch(job, environment=environment, progress=progress or Silent())
            model = in_units(load_network(folder / MODEL), mean, scale)

        def forecast(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
            parts = np.array_split(numbers, max(len(numbers) // _AT_ONCE, 1))
            found = [model.outputs(_sequences(rows, step_NS[part])) for part in parts]
            return np.concatenate(found).reshape(-1).astype(np.float64)

        numbers = np.flatnonzero(validates_N)
        error = ((forecast(numbers) - rows.target_N[numbers]) ** 2).mean()
        gain = float(1 - error / ((rows.target_N[numbers] - mean) ** 2).mean())
        told = {**model.metrics, "validation_gain": gain}
        return Fitted(replace(model, metrics=told), forecast, gain)

    return fit


def step_columns(columns: Sequence[str], n_steps: int, step_days: int) -> tuple[str, ...]:
    """Return the names of a row's S K features: indicators of each step, the oldest step first."""
    ages = (step_days * s for s in reversed(range(n_steps)))
    return tuple(f"{name}_{age}d" for age in ages for name in columns)


def in_units(model: NetworkModel, mean: float, scale: float) -> NetworkModel:
    """Return a network of standardised targets as one of the targets: its head says them."""
    last = f"layers.{model.config.n_layers - 1}.project"
    weights = dict(model.weights)
    weights[f"{last}.weight"] = (weights[f"{last}.weight"] * scale).astype(np.float32)
    weights[f"{last}.bias"] = (weights[f"{last}.bias"] * scale + mean).astype(np.float32)
    return replace(model, weights=weights)


def past_rows(rows: Rows, n_steps: int, step_days: int) -> NDArray[np.int64]:
    """Return the rows of each row's steps, oldest first, shape (N, S); the oldest known repeats."""
    n_days = int(rows.day_N.max()) + 1
    row_IA = np.full((n_days, int(rows.asset_N.max()) + 1), -1)
    row_IA[rows.day_N, rows.asset_N] = np.arange(len(rows.day_N))
    step_NS = np.empty((len(rows.day_N), n_steps), np.int64)
    step_NS[:, -1] = np.arange(len(rows.day_N))
    for s in range(1, n_steps):
        day_N = rows.day_N - s * step_days
        found_N = np.where(day_N >= 0, row_IA[np.maximum(day_N, 0), rows.asset_N], -1)
        newer_N = step_NS[:, n_steps - s]
        step_NS[:, n_steps - s - 1] = np.where(found_N >= 0, found_N, newer_N)
    return step_NS


def _sequences(rows: Rows, step_NS: NDArray[np.int64]) -> NDArray[np.float32]:
    return rows.features_NK[step_NS].reshape(len(step_NS), -1)


def _write(
    path: Path,
    rows: Rows,
    step_NS: NDArray[np.int64],
    is_in_N: NDArray[np.bool_],
    mean: float,
    scale: float,
) -> None:
    numbers = np.flatnonzero(is_in_N)
    dim = step_NS.shape[1] * rows.features_NK.shape[1]
    with RecordWriter(path, dim, with_label=True) as writer:
        for start in range(0, len(numbers), _AT_ONCE):
            part = numbers[start : start + _AT_ONCE]
            label_N = ((rows.target_N[part] - mean) / scale).astype(np.float32)
            writer.write(_sequences(rows, step_NS[part]), label_N)
