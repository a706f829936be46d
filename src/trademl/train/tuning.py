"""Search for hyperparameters batch by batch, so that a killed search ends as an unbroken one.

All trials of a batch are asked for, trained side by side, and told in order. A sampler lives for
one batch and is seeded from the seed and the number of trials before it: what it proposes depends
on finished batches alone. A batch that was cut short is thrown away and done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from trademl.errors import ConfigError, StoreError, TrainError
from trademl.etl.dataset import Split
from trademl.ledger import Database
from trademl.ports import Progress, Silent
from trademl.train.batch import Ask, BatchTrainer, Job, train_group
from trademl.train.completion import Ending, ending
from trademl.train.early_stopping import rule_for
from trademl.train.hyperparameters import LinearLearnerParameters, Scalar, as_text
from trademl.train.model import load_model
from trademl.train.ranges import NumberRange, Range
from trademl.train.search_space import VALIDATION_LOSS, TuningConfig
from trademl.train.study import HeldStudy, open_study, quiet_optuna, runtime_s, span, study_errors
from trademl.train.trials import Objective, TrialResult
from trademl.train.warm_start import Parent

_RESULT = "result"  # user attribute of a trial


@dataclass(frozen=True)
class Search:
    """A search that ended.

    Parameters
    ----------
    trials : list of TrialResult
        In order of their numbers, failed ones among them.
    ending : Ending
        What ended it.
    spans : list of (datetime, datetime)
        When each trial began and ended, local time; trials of a batch end together.
    """

    trials: list[TrialResult]
    ending: Ending
    spans: list[tuple[datetime, datetime]]


def tune(
    train: Split,
    validation: Split,
    config: TuningConfig,
    *,
    seed: int,
    storage: str | Database,
    study_name: str,
    folder: Path,
    progress: Progress | None = None,
    test: Split | None = None,
    columns: Sequence[str] = (),
    parents: Sequence[Parent] = (),
) -> Search:
    """Run a search to its end, or go on with one that was interrupted.

    Parameters
    ----------
    config : TuningConfig
        See `parse_tuning_config`. A trial's ``num_models`` is 1, whatever it says.
    seed : int
        Of training, and of the sampler unless the configuration brings its own.
    storage : str or Database
        The database that holds the study; it may be the ledger's.
    study_name : str
        Stands for data and configuration: a study of that name is gone on with.
    folder : Path
        Gets ``trial-<NN>.tar.gz`` of every trained trial, before the study hears of it.
    test : Split, optional
        Read only where the objective is on ``test:``.
    parents : sequence of Parent
        Finished searches whose trials the sampler begins with.

    Returns
    -------
    Search

    Raises
    ------
    ConfigError
        If the objective needs a test split and none is given.
    StoreError
        If the study was begun with other settings, or the database cannot be used.
    TrainError
        If every trial failed or none has a value of the objective, or the ``train`` extra is not
        installed.
    """
    job = _job(train, validation, test, config.objective, columns, seed, folder)
    progress = progress or Silent()
    progress.step("tune", "; ".join([_plan(config), *config.warnings]))
    epochs = LinearLearnerParameters.from_strings(_hyperparameters(config, {})).epochs
    with (
        quiet_optuna(),
        study_errors(storage),
        open_study(storage, study_name, config, seed, parents) as held,
        BatchTrainer(
            job, n_jobs=config.n_jobs, n_parallel=config.n_parallel, epochs=epochs
        ) as trainer,
    ):
        results: list[TrialResult] = []
        while (end := _ending(held, config, results)) is None:
            progress.advance(len(results), config.n_jobs)
            results += _next_batch(held, job, config, results, trainer)
        spans = [span(trial) for trial in held.trials()[: len(results)]]
    progress.advance(len(results), len(results))
    _check(results, config.objective)
    best = max(results, key=lambda r: (r.rank, -r.number))
    progress.done(f"best {config.objective.metric} {_shown(best.objective)} in trial {best.number}")
    return Search(results, end, spans)


def _plan(config: TuningConfig) -> str:
    most = "at most " if config.completion.can_end else ""
    return f"{most}{config.n_jobs} trials, {config.n_parallel} at a time"


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
    (result,) = train_group(job, [Ask(0, texts)], progress)
    if result.failure is not None:
        raise TrainError(result.failure)
    progress.done(f"{objective.metric} {_shown(result.objective)}")
    return result


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _check(results: Sequence[TrialResult], objective: Objective) -> None:
    """Refuse a search that has nothing to choose from."""
    if all(result.failure is not None for result in results):
        raise TrainError(f"every trial failed; trial 0: {results[0].failure}")
    if all(result.objective is None for result in results):
        raise TrainError(
            f"no trial has a value of the objective {objective.metric}: it is undefined for every "
            "one of them; choose another MetricName, such as validation:objective_loss"
        )


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


def _ending(held: HeldStudy, config: TuningConfig, results: Sequence[TrialResult]) -> Ending | None:
    if len(results) >= config.n_jobs:
        return "all_trials"
    spent_s = runtime_s(held.trials()[: len(results)], config.n_parallel)
    return ending(config.completion, results, runtime_s=spent_s)


def _next_batch(
    held: HeldStudy,
    job: Job,
    config: TuningConfig,
    before: Sequence[TrialResult],
    trainer: BatchTrainer,
) -> list[TrialResult]:
    """Read a batch back that an interrupted search finished, or ask, train and tell a new one."""
    n_done = len(before)
    size = min(config.n_parallel, config.n_jobs - n_done)
    if known := held.trials()[n_done : n_done + size]:
        return _recall(known, job, config, before, trainer)
    trials = held.ask(config, job.seed, n_done, size)
    drawn = [_hyperparameters(config, trial.params) for trial in trials]
    results = trainer.train(_asks(config, before, drawn))
    for trial, result in zip(trials, results, strict=True):
        trial.set_user_attr(_RESULT, _as_json(result))
        _tell(held, trial, result)
    return results


def _tell(held: HeldStudy, trial: optuna.Trial, result: TrialResult) -> None:
    held.tell(trial, result)


def _asks(
    config: TuningConfig, before: Sequence[TrialResult], drawn: Sequence[dict[str, str]]
) -> list[Ask]:
    losses = {r.number: r.losses for r in before if r.losses}
    return [
        Ask(
            number,
            hyperparameters,
            rule_for(
                number,
                losses,
                hyperband=config.hyperband,
                has_median_rule=config.has_median_rule,
            ),
        )
        for number, hyperparameters in enumerate(drawn, len(before))
    ]


def _hyperparameters(config: TuningConfig, drawn: Mapping[str, Any]) -> dict[str, str]:
    tuned = {r.name: _tuned_text(r, drawn[r.name]) for r in config.ranges if drawn}
    longest = {"epochs": str(config.hyperband.max_epochs)} if config.hyperband else {}
    return {**config.static, **longest, **tuned, "num_models": "1"}


def _tuned_text(one: Range, drawn: Any) -> str:
    if isinstance(one, NumberRange) and one.scaling == "ReverseLogarithmic":
        return repr(min(max(1.0 - float(drawn), one.low), one.high))
    return as_text(drawn)


def _recall(
    known: Sequence[FrozenTrial],
    job: Job,
    config: TuningConfig,
    before: Sequence[TrialResult],
    trainer: BatchTrainer,
) -> list[TrialResult]:
    """Return the results of a finished batch; train it again where a model of it is gone."""
    facts = [trial.user_attrs[_RESULT] for trial in known]
    recalled = [_from_json(n, fact, job) for n, fact in enumerate(facts, len(before))]
    if all(_has_model(result) for result in recalled):
        return recalled
    return trainer.train(_asks(config, before, [fact["hyperparameters"] for fact in facts]))


def _has_model(result: TrialResult) -> bool:
    if result.failure is not None or result.model_path is None:
        return result.failure is not None
    try:
        load_model(result.model_path)
    except StoreError:
        return False
    return True


def _as_json(result: TrialResult) -> dict[str, Any]:
    names = ("hyperparameters", "metrics", "failure", "losses", "is_stopped")
    return {name: getattr(result, name) for name in names}


def _from_json(number: int, facts: Mapping[str, Any], job: Job) -> TrialResult:
    has_failed = facts["failure"] is not None
    return TrialResult(
        number,
        facts["hyperparameters"],
        None if has_failed else facts["metrics"].get(job.objective.metric),
        job.objective.direction,
        facts["metrics"],
        None if has_failed else job.model_path(number),
        facts["failure"],
        tuple(facts["losses"]),
        facts["is_stopped"],
    )
