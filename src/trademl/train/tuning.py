"""Search for hyperparameters batch by batch, so that a killed search ends as an unbroken one.

All trials of a batch are asked for, trained side by side, and told in order. A sampler lives for
one batch and is seeded from the seed and the number of trials before it: what it proposes depends
on finished batches alone. A batch that was cut short is thrown away and done again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from trademl.errors import ConfigError, StoreError, TrainError
from trademl.etl.dataset import Split
from trademl.ports import Progress, Silent
from trademl.train.hyperparameters import LinearLearnerParameters, Scalar, as_text
from trademl.train.model import load_model, save_model
from trademl.train.ranges import NumberRange, Range
from trademl.train.search_space import TuningConfig
from trademl.train.study import distribution, open_study, quiet_optuna, sampler, study_errors
from trademl.train.trials import Objective, TrialResult

VALIDATION_LOSS = Objective("validation:objective_loss", "Minimize")

_RESULT = "result"  # user attribute of a trial


@dataclass(frozen=True)
class Job:
    """What every trial of a search shares."""

    train: Split
    validation: Split
    test: Split | None
    objective: Objective
    columns: tuple[str, ...]
    seed: int
    folder: Path


def tune(
    train: Split,
    validation: Split,
    config: TuningConfig,
    *,
    seed: int,
    storage: str,
    study_name: str,
    folder: Path,
    progress: Progress | None = None,
    test: Split | None = None,
    columns: Sequence[str] = (),
) -> list[TrialResult]:
    """Run a search to its end, or go on with one that was interrupted.

    Parameters
    ----------
    config : TuningConfig
        See `parse_tuning_config`. A trial's ``num_models`` is 1, whatever it says.
    seed : int
        Of training, and of the sampler unless the configuration brings its own.
    storage : str
        SQLAlchemy URL of the database that holds the study; it may be the ledger's.
    study_name : str
        Stands for data and configuration: a study of that name is gone on with.
    folder : Path
        Gets ``trial-<NN>.tar.gz`` of every trained trial, before the study hears of it.
    test : Split, optional
        Read only where the objective is on ``test:``.

    Returns
    -------
    list of TrialResult
        In order of their numbers, failed ones among them.

    Raises
    ------
    ConfigError
        If the objective needs a test split and none is given.
    StoreError
        If the study was begun with other settings, or the database cannot be used.
    TrainError
        If every trial failed, or the ``train`` extra is not installed.
    """
    job = _job(train, validation, test, config.objective, columns, seed, folder)
    progress = progress or Silent()
    progress.step("tune", f"{config.n_jobs} trials, {config.n_parallel} at a time")
    with (
        quiet_optuna(),
        study_errors(storage),
        open_study(storage, study_name, config, seed) as study,
        ThreadPoolExecutor(min(config.n_parallel, os.cpu_count() or 1)) as pool,
    ):
        results = [_recall_trial(trial, job) for trial in study.get_trials()[: config.n_jobs]]
        while len(results) < config.n_jobs:
            progress.advance(len(results), config.n_jobs)
            results += _run_batch(study, job, config, len(results), pool)
    progress.advance(len(results), config.n_jobs)
    if all(result.failure for result in results):
        raise TrainError(f"every trial failed; trial 0: {results[0].failure}")
    best = max(results, key=lambda r: (r.rank, -r.number))
    progress.done(f"best {config.objective.metric} {_shown(best.objective)} in trial {best.number}")
    return results


def train_one(
    train: Split,
    validation: Split,
    hyperparameters: Mapping[str, Scalar],
    *,
    seed: int,
    folder: Path,
    objective: Objective = VALIDATION_LOSS,
    progress: Progress | None = None,
    test: Split | None = None,
    columns: Sequence[str] = (),
) -> TrialResult:
    """Train one model with fixed hyperparameters, as a search of a single trial; see `tune`.

    Raises
    ------
    ConfigError
        If a hyperparameter is refused.
    TrainError
        If training does not end in a finite model.
    """
    job = _job(train, validation, test, objective, columns, seed, folder)
    texts = {name: as_text(value) for name, value in hyperparameters.items()}
    progress = progress or Silent()
    progress.step("train")
    result = _train(job, 0, texts, progress)
    progress.done(f"{objective.metric} {_shown(result.objective)}")
    return result


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _job(
    train: Split,
    validation: Split,
    test: Split | None,
    objective: Objective,
    columns: Sequence[str],
    seed: int,
    folder: Path,
) -> Job:
    """Leave the test split out unless the objective asks for it."""
    needs_test = objective.metric.startswith("test:")
    if needs_test and test is None:
        raise ConfigError(f"the objective {objective.metric} needs a test split, and there is none")
    seen = test if needs_test else None
    return Job(train, validation, seen, objective, tuple(columns), seed, folder)


def _run_batch(
    study: optuna.Study, job: Job, config: TuningConfig, n_done: int, pool: ThreadPoolExecutor
) -> list[TrialResult]:
    """Ask for a batch, train it, and tell it in order."""
    study.sampler = sampler(config, job.seed, n_done)
    space = {r.name: distribution(r) for r in config.ranges}
    size = min(config.n_parallel, config.n_jobs - n_done)
    trials = [study.ask(space) for _ in range(size)]
    settings = [_hyperparameters(config, trial.params) for trial in trials]
    numbers = range(n_done, n_done + size)
    results = list(pool.map(_try_to_train, [job] * size, numbers, settings))
    for trial, result in zip(trials, results, strict=True):
        trial.set_user_attr(_RESULT, _as_json(result))
        _tell(study, trial, result)
    return results


def _tell(study: optuna.Study, trial: optuna.Trial, result: TrialResult) -> None:
    if result.failure:
        study.tell(trial, state=TrialState.FAIL)
        return
    undefined = 0.0  # precision or recall of nothing: the worst a metric to maximise can be
    study.tell(trial, undefined if result.objective is None else result.objective)


def _try_to_train(job: Job, number: int, hyperparameters: dict[str, str]) -> TrialResult:
    """Train a trial; one that cannot be trained is a result as well, and the search goes on."""
    try:
        return _train(job, number, hyperparameters, Silent())
    except TrainError as error:
        return TrialResult(
            number, hyperparameters, None, job.objective.direction, failure=str(error)
        )


def _train(
    job: Job, number: int, hyperparameters: dict[str, str], progress: Progress
) -> TrialResult:
    try:
        from trademl.train.linear_learner import fit
    except ImportError as error:
        raise TrainError(f"{error}: pip install 'trademl[train]'") from error
    trained = fit(
        job.train,
        job.validation,
        LinearLearnerParameters.from_strings(hyperparameters),
        seed=job.seed,
        progress=progress,
        columns=job.columns,
        test=job.test,
    )
    path = _model_path(job.folder, number)
    save_model(trained.model, path)
    value = trained.metrics.get(job.objective.metric)
    return TrialResult(
        number, hyperparameters, value, job.objective.direction, trained.metrics, path
    )


def _hyperparameters(config: TuningConfig, drawn: Mapping[str, Any]) -> dict[str, str]:
    tuned = {r.name: _tuned_text(r, drawn[r.name]) for r in config.ranges}
    return {**config.static, **tuned, "num_models": "1"}


def _tuned_text(one: Range, drawn: Any) -> str:
    if isinstance(one, NumberRange) and one.scaling == "ReverseLogarithmic":
        return repr(min(max(1.0 - float(drawn), one.low), one.high))
    return as_text(drawn)


def _recall_trial(trial: FrozenTrial, job: Job) -> TrialResult:
    """Return a finished trial's result; train it again where its model is gone."""
    known = trial.user_attrs[_RESULT]
    direction = job.objective.direction
    if known["failure"]:
        return TrialResult(
            trial.number, known["hyperparameters"], None, direction, failure=known["failure"]
        )
    path = _model_path(job.folder, trial.number)
    try:
        load_model(path)
    except StoreError:
        return _train(job, trial.number, known["hyperparameters"], Silent())
    return TrialResult(
        trial.number,
        known["hyperparameters"],
        known["metrics"].get(job.objective.metric),
        direction,
        known["metrics"],
        path,
    )


def _as_json(result: TrialResult) -> dict[str, Any]:
    names = ("hyperparameters", "metrics", "failure")
    return {name: getattr(result, name) for name in names}


def _model_path(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:02d}.tar.gz"
