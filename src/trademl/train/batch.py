"""Train the trials of one batch: those that can share a pass together, the rest side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trademl.errors import TrainError
from trademl.etl.dataset import Split
from trademl.train.early_stopping import StoppingRule
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.model import save_model
from trademl.train.trials import Objective, TrialResult
from trademl.train.workers import WorkerPool

# Starting a process takes as long as training does on this many numbers, a few seconds.
_CELLS_WORTH_A_PROCESS = 4_000_000_000


@dataclass(frozen=True)
class Job:
    """What every trial of a search shares.

    Parameters
    ----------
    test : Split or None
        Only where the objective is on ``test:``.
    folder : Path
        Gets ``trial-<NN>.tar.gz`` of every trained trial.
    """

    train: Split
    validation: Split
    test: Split | None
    objective: Objective
    columns: tuple[str, ...]
    seed: int
    folder: Path

    def model_path(self, number: int) -> Path:
        """Return where the model of a trial lies."""
        return self.folder / f"trial-{number:02d}.tar.gz"


@dataclass(frozen=True)
class Ask:
    """A trial to train, and what it is held against while it trains."""

    number: int
    hyperparameters: dict[str, str]
    rule: StoppingRule | None = None


class BatchTrainer:
    """Trains batches, in processes of their own where that pays; use it as a context manager.

    Parameters
    ----------
    n_jobs, n_parallel : int
        Trials in all, and in one batch.
    epochs : int
        Of a trial, at most.
    """

    def __init__(self, job: Job, *, n_jobs: int, n_parallel: int, epochs: int) -> None:
        self._job = job
        n_cells = job.train.features_ND.size * epochs * n_jobs
        n_workers = min(n_parallel, len(os.sched_getaffinity(0)))
        pays = n_workers > 1 and n_cells >= _CELLS_WORTH_A_PROCESS
        self._pool = WorkerPool(job, n_workers) if pays else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.close()

    def train(self, batch: Sequence[Ask]) -> list[TrialResult]:
        """Return what became of each trial of a batch, in order."""
        groups = grouped(batch)
        if self._pool is not None:
            done = self._pool.run(groups)
        else:
            done = [train_group(self._job, group) for group in groups]
        results = {result.number: result for group in done for result in group}
        return [results[ask.number] for ask in batch]


def grouped(batch: Sequence[Ask]) -> list[list[Ask]]:
    """Put trials that can share their passes over the data into one group.

    A trial that may be stopped early trains alone.
    """
    groups: dict[Any, list[Ask]] = {}
    for ask in batch:
        key = ask.number if ask.rule else _pass_key(ask)
        groups.setdefault(key, []).append(ask)
    return list(groups.values())


def train_group(job: Job, group: Sequence[Ask]) -> list[TrialResult]:
    """Train trials that share their passes and keep their models.

    A trial that cannot be trained is a result as well, and the search goes on.

    Raises
    ------
    ConfigError, DataError
        If no trial could be trained on these data.
    """
    return [_try_to_train(job, ask) for ask in group]


def _try_to_train(job: Job, ask: Ask) -> TrialResult:
    try:
        return _train(job, ask)
    except TrainError as error:
        return failed(job, ask, str(error))


def failed(job: Job, ask: Ask, reason: str) -> TrialResult:
    """Return the result of a trial that came to nothing."""
    return TrialResult(
        ask.number, ask.hyperparameters, None, job.objective.direction, failure=reason
    )
