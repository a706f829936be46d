"""The best checkpoint of a run, made into a model file with metrics and a threshold.

Shape letters: N rows, D features, K outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import TrainError
from trademl.etl.row_source import RowSource
from trademl.store.identity import code_version
from trademl.train.metrics import binary_metrics
from trademl.train.model import sigmoid
from trademl.train.network_file import NetworkModel, save_network
from trademl.train.networks import build_network
from trademl.train.parallel.checkpoints import Checkpoints
from trademl.train.parallel.job import NetworkJob
from trademl.train.parallel.position import Position
from trademl.train.parallel.run_files import MODEL
from trademl.train.thresholds import calibrate_as

_ROWS_AT_ONCE = 4096


def export_model(
    job: NetworkJob, position: Position, checkpoints: Checkpoints, validation: RowSource
) -> Path:
    """Write ``model.tar.gz`` into the job's folder and return it; one process does.

    The threshold is calibrated on the validation rows, which are measured at it.

    Raises
    ------
    TrainError
        If no epoch was finished.
    """
    if position.best_step is None:
        raise TrainError("no epoch was finished: there is no model to write")
    network = build_network(job.network, job.feature_dim, seed=job.seed)
    weights = checkpoints.read_weights(position.best_step, network)
    model = NetworkModel(
        config=job.network,
        weights={name: weight.detach().cpu().numpy() for name, weight in weights.items()},
        loss=job.training.loss,
        threshold=0.5,
        columns=job.columns,
        hyperparameters=job.as_hyperparameters(),
        code_version=code_version(),
    )
    target_NK, output_NK = _predict(model, validation)
    threshold, metrics = _measure(job, target_NK, output_NK)
    best = next(h for h in position.history if h.validation_loss == position.best_loss)
    save_network(
        replace(
            model,
            threshold=threshold,
            metrics={
                **metrics,
                "train_loss": best.train_loss,
                "validation_loss": best.validation_loss,
                "best_epoch": best.epoch,
                "epochs": len(position.history),
            },
        ),
        job.folder / MODEL,
    )
    return job.folder / MODEL


def _predict(
    model: NetworkModel, source: RowSource
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    found = [(target, model.outputs(rows)) for rows, target in _blocks(source)]
    targets, outputs = zip(*found, strict=True)
    return np.concatenate(targets), np.concatenate(outputs)


def _blocks(source: RowSource) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    for start in range(0, len(source), _ROWS_AT_ONCE):
        yield source.read(np.arange(start, min(start + _ROWS_AT_ONCE, len(source))))


def _measure(
    job: NetworkJob, target_NK: NDArray[np.float32], output_NK: NDArray[np.float32]
) -> tuple[float, dict[str, Any]]:
    if job.training.loss != "logistic" or target_NK.shape[1] != 1:
        error = float(np.square(output_NK.astype(np.float64) - target_NK).mean())
        naive = float(np.square(target_NK - target_NK.mean(axis=0, dtype=np.float64)).mean())
        return 0.5, {
            "validation:mean_squared_error": error,
            "validation:mean_squared_error_of_mean": naive,
        }
    label_N, logit_N = target_NK[:, 0], output_NK[:, 0].astype(np.float64)
    score_N = sigmoid(logit_N).astype(np.float32)
    threshold = calibrate_as(job.as_hyperparameters(), label_N, score_N)
    flagged_N = score_N >= np.float32(threshold.value)
    metrics = binary_metrics(label_N, logit_N, flagged_N, beta=job.training.f_beta)
    return threshold.value, {f"validation:{name}": value for name, value in metrics.items()}
