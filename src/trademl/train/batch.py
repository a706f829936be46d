"""Train the trials of one batch: those that can share a pass together, the rest side by side."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trademl.errors import TrainError
from trademl.etl.dataset import Split
from trademl.ports import Progress
from trademl.train.early_stopping import StoppingRule
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.model import save_model
from trademl.train.observing import EpochReport
from trademl.train.trials import Objective, TrialResult
from trademl.train.workers import WorkerPool

if TYPE_CHECKING:
    from trademl.train.linear_learner import TrainedModel

# Features read by all trials, above which a worker of its own can die or be killed without harm to
# the search: about half a minute of training, against a few seconds to start the workers.
_CELLS_WORTH_A_PROCESS = 20_000_000_000


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

    Short searches train in threads of this process: compiled code lets them run side by side.

    Parameters
    ----------
    n_jobs, n_parallel : int
        Trials in all, and in one batch.
    epochs : int
        Of a trial, at most.
    """

    def __init__(self, job: Job, *, n_jobs: int, n_parallel: int, epochs: int) -> None:
        self._job = job
        n_workers = min(n_parallel, len(os.sched_getaffinity(0)))
        n_cells = job.train.features_ND.size * epochs * n_jobs
        self._threads = ThreadPoolExecutor(n_workers)
        self._pool = WorkerPool(job, n_workers) if n_cells >= _CELLS_WORTH_A_PROCESS else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        if self._pool is not None:
            self._pool.close()

    def train(self, batch: Sequence[Ask]) -> list[TrialResult]:
        """Return what became of each trial of a batch, in order."""
        groups = grouped(batch)
        if self._pool is not None:
            done = self._pool.run(groups)
        else:
            done = list(self._threads.map(lambda group: train_group(self._job, group), groups))
        results = {result.number: result for group in done for result in group}
        return [results[ask.number] for ask in batch]


def grouped(batch: Sequence[Ask]) -> list[list[Ask]]:
    """Put trials that can share their passes over the data into one group.

    A trial that may be stopped early trains alone.
    """
    groups: dict[Hashable, list[Ask]] = {}
    for ask in batch:
        key = ("alone", ask.number) if ask.rule else _pass_key(ask)
        groups.setdefault(key, []).append(ask)
    return list(groups.values())


def train_group(
    job: Job, group: Sequence[Ask], progress: Progress | None = None
) -> list[TrialResult]:
    """Train trials that share their passes and keep their models.

    A trial that cannot be trained is a result as well, and the search goes on.

    Raises
    ------
    ConfigError, DataError
        If no trial could be trained on these data.
    """
    try:
        from trademl.train import linear_learner
    except ImportError as error:
        raise TrainError(f"{error}: pip install 'trademl[train]'") from error
    parameters = [LinearLearnerParameters.from_strings(ask.hyperparameters) for ask in group]
    shared: dict[str, Any] = {"seed": job.seed, "columns": job.columns, "test": job.test}
    if len(group) > 1:
        found = linear_learner.fit_together(job.train, job.validation, parameters, **shared)
        return [_result(job, ask, each) for ask, each in zip(group, found, strict=True)]
    (ask,) = group
    referee = Referee(ask.rule)
    try:
        trained = linear_learner.fit(
            job.train,
            job.validation,
            *parameters,
            observer=referee,
            should_stop=referee.stops,
            progress=progress,
            **shared,
        )
    except TrainError as error:
        return [failed(job, ask, str(error))]
    return [_result(job, ask, trained, is_stopped=referee.has_stopped)]


class Referee:
    """Watches one trial train, and stops it where its rule says so."""

    def __init__(self, rule: StoppingRule | None) -> None:
        self._rule = rule
        self._losses: list[float] = []
        self.has_stopped = False

    def started(self, candidate: int, parameters: LinearLearnerParameters, n_models: int) -> None:
        """Ignore it."""

    def epoch_ended(self, report: EpochReport) -> None:
        """Note the validation loss; the last epoch is not judged."""
        self._losses.append(report.validation_loss_M[0])
        if self._rule is not None and report.epoch + 1 < report.epochs:
            self.has_stopped = self._rule.stops(self._losses)

    def finished(self, candidate: int, trained: TrainedModel) -> None:
        """Ignore it."""

    def stops(self) -> bool:
        """Say whether the trial should train no further."""
        return self.has_stopped


def _result(
    job: Job, ask: Ask, trained: TrainedModel | TrainError, *, is_stopped: bool = False
) -> TrialResult:
    if isinstance(trained, TrainError):
        return failed(job, ask, str(trained))
    path = job.model_path(ask.number)
    save_model(trained.model, path)
    return TrialResult(
        ask.number,
        ask.hyperparameters,
        trained.metrics.get(job.objective.metric),
        job.objective.direction,
        trained.metrics,
        path,
        losses=tuple(log.validation_loss for log in trained.history),
        is_stopped=is_stopped,
    )


def _pass_key(ask: Ask) -> Hashable:
    from trademl.train.linear_learner import pass_key

    return pass_key(LinearLearnerParameters.from_strings(ask.hyperparameters))


def failed(job: Job, ask: Ask, reason: str) -> TrialResult:
    """Return the result of a trial that came to nothing."""
    return TrialResult(
        ask.number, ask.hyperparameters, None, job.objective.direction, failure=reason
    )
