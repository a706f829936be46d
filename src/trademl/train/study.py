"""The study that a search keeps in its database, as Optuna sees it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError

from trademl.errors import StoreError
from trademl.ledger.connections import connector
from trademl.ledger.databases import Database, as_database
from trademl.ledger.failures import as_store_error, database_errors
from trademl.store.identity import digest_bytes
from trademl.train.determinism import Stream, generator
from trademl.train.ranges import CategoryRange, NumberRange, Range
from trademl.train.search_space import TuningConfig
from trademl.train.trials import TrialResult
from trademl.train.warm_start import Parent

_FINISHED = (TrialState.COMPLETE, TrialState.FAIL)
_STARTUP_TRIALS = 4  # drawn at random before TPE has anything to learn from
_SETTINGS = "settings"  # user attribute of the study
_PARENT = "parent"  # user attribute of a trial that an earlier search made


@dataclass(frozen=True)
class HeldStudy:
    """A study whose first ``n_prior`` trials are those of parents, and the rest its own."""

    study: optuna.Study
    n_prior: int

    def trials(self) -> list[FrozenTrial]:
        """Return its own trials, in order."""
        return self.study.get_trials()[self.n_prior :]

    def ask(self, config: TuningConfig, seed: int, n_done: int, size: int) -> list[optuna.Trial]:
        """Begin ``size`` trials after ``n_done`` told ones."""
        self.study.sampler = _sampler(config, seed, n_done)
        if config.strategy == "Grid":
            for point in itertools.islice(_grid(config), n_done, n_done + size):
                self.study.enqueue_trial(point)
        space = {r.name: distribution(r) for r in config.ranges}
        return [self.study.ask(space) for _ in range(size)]

    def tell(self, trial: optuna.Trial, result: TrialResult) -> None:
        """End a trial with what came of it."""
        if result.failure is not None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, _value(result))


@contextmanager
def open_study(
    storage: str | Database,
    name: str,
    config: TuningConfig,
    seed: int,
    parents: Sequence[Parent] = (),
) -> Iterator[HeldStudy]:
    """Yield the study, begun or gone on with, holding its complete batches only.

    Raises
    ------
    StoreError
        If a study of that name was begun with other settings.
    """
    held = open_storage(storage)
    prior = [trial for parent in parents for trial in _prior_trials(parent, config)]
    try:
        study = _resume(held, name, config, _settings(config, seed, parents), prior)
        yield HeldStudy(study, len(prior))
    finally:
        held.remove_session()
        held.engine.dispose()


def open_storage(where: str | Database) -> optuna.storages.RDBStorage:
    """Return Optuna's own tables in a database, made where they are not there yet."""
    database = as_database(where)
    options: dict[str, Any] = {
        "connect_args": {"timeout": 30},
        "pool_events": [(_prepare_sqlite, "connect")],
    }
    if not database.is_file:
        options = {"creator": connector(database), "pool_pre_ping": True}
    return optuna.storages.RDBStorage(database.url, engine_kwargs=options)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Do without a flush of the disk in each of a trial's twenty commits, as the ledger does."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def span(trial: FrozenTrial) -> tuple[datetime, datetime]:
    """Return when a finished trial was asked for and when it was told."""
    begun, ended = trial.datetime_start, trial.datetime_complete
    if begun is None or ended is None:
        raise StoreError(f"trial {trial.number} of the study has no times: it was edited")
    return begun.astimezone(), ended.astimezone()


def runtime_s(trials: Sequence[FrozenTrial], n_parallel: int) -> float:
    """Return what the batches of these finished trials took by the clock, in seconds."""
    spans = [span(trial) for trial in trials]
    batches = [spans[first : first + n_parallel] for first in range(0, len(spans), n_parallel)]
    return sum(
        (max(ended for _, ended in batch) - min(begun for begun, _ in batch)).total_seconds()
        for batch in batches
    )


def _resume(
    held: optuna.storages.RDBStorage,
    name: str,
    config: TuningConfig,
    settings: str,
    prior: list[FrozenTrial],
) -> optuna.Study:
    study = _create(held, name, config)
    if study.user_attrs.get(_SETTINGS, settings) != settings:
        raise StoreError(
            f"study {name} was begun with other settings than these: give this search another name"
        )
    study.set_user_attr(_SETTINGS, settings)
    trials = study.get_trials(deepcopy=False)
    own = trials[len(prior) :]
    kept = _complete_batches(own, config)
    if len(trials) >= len(prior) and len(kept) in (len(own), config.n_jobs):
        return study
    optuna.delete_study(study_name=name, storage=held)  # Optuna cannot delete a single trial
    study = _create(held, name, config)
    study.set_user_attr(_SETTINGS, settings)
    study.add_trials([*prior, *kept])
    return study


def _create(held: optuna.storages.RDBStorage, name: str, config: TuningConfig) -> optuna.Study:
    return optuna.create_study(
        storage=held,
        study_name=name,
        direction="maximize" if config.objective.direction == "Maximize" else "minimize",
        load_if_exists=True,
    )


def _complete_batches(trials: Sequence[FrozenTrial], config: TuningConfig) -> list[FrozenTrial]:
    """Return the trials before the first batch of which one is missing or was never told."""
    kept: list[FrozenTrial] = []
    while len(kept) < config.n_jobs:
        size = min(config.n_parallel, config.n_jobs - len(kept))
        batch = trials[len(kept) : len(kept) + size]
        if len(batch) < size or any(trial.state not in _FINISHED for trial in batch):
            break
        kept += batch
    return kept


def _settings(config: TuningConfig, seed: int, parents: Sequence[Parent]) -> str:
    """Return a digest of what decides the trials; more jobs go on with the same ones."""
    decisive = [
        sorted(config.static.items()),
        config.ranges,
        config.objective,
        config.strategy,
        config.n_parallel,
        config.random_seed,
        config.has_median_rule,
        config.hyperband,
        [parent.study_id for parent in parents],
        seed,
    ]
    return digest_bytes(repr(decisive).encode())[:16]


def distribution(one: Range) -> BaseDistribution:
    """Return what Optuna draws from; a reverse logarithmic range draws one minus the value."""
    if isinstance(one, CategoryRange):
        return CategoricalDistribution(one.values)
    is_log = one.scaling == "Logarithmic"
    if one.is_integer:
        return IntDistribution(int(one.low), int(one.high), log=is_log)
    if one.scaling == "ReverseLogarithmic":
        return FloatDistribution(1.0 - one.high, 1.0 - one.low, log=True)
    return FloatDistribution(one.low, one.high, log=is_log)


def _sampler(config: TuningConfig, seed: int, n_done: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of the batch that follows ``n_done`` trials."""
    base = seed if config.random_seed is None else config.random_seed
    drawn = int(generator(base, Stream.SAMPLER, n_done).integers(2**31))
    if config.strategy != "Bayesian":
        return optuna.samplers.RandomSampler(seed=drawn)
    return optuna.samplers.TPESampler(
        seed=drawn, n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True
    )


def _grid(config: TuningConfig) -> Iterator[dict[str, str]]:
    """Yield every combination, the last range's values changing fastest."""
    categories = [r for r in config.ranges if isinstance(r, CategoryRange)]
    for values in itertools.product(*(r.values for r in categories)):
        yield {r.name: value for r, value in zip(categories, values, strict=True)}


def _prior_trials(parent: Parent, config: TuningConfig) -> list[FrozenTrial]:
    """Return a parent's trials that lie within this search's ranges, for its sampler to learn."""
    space = {r.name: distribution(r) for r in config.ranges}
    prior = []
    for trial in parent.trials:
        params = {r.name: _drawn(r, trial.hyperparameters.get(r.name)) for r in config.ranges}
        if trial.failure is None and None not in params.values():
            prior.append(
                optuna.trial.create_trial(
                    params=params,
                    distributions=space,
                    value=_value(trial),
                    user_attrs={_PARENT: f"{parent.study_id}/{trial.number}"},
                )
            )
    return prior


def _drawn(one: Range, text: str | None) -> str | float | int | None:
    """Return what Optuna would have drawn to get a value, or None where it never would have."""
    if text is None or text == "auto":
        return None
    if isinstance(one, CategoryRange):
        return text if text in one.values else None
    value = float(text)
    if not one.low <= value <= one.high:
        return None
    return _as_drawn(one, value)


def _as_drawn(one: NumberRange, value: float) -> float | int:
    if one.is_integer:
        return int(value)
    if one.scaling == "ReverseLogarithmic":
        return min(max(1.0 - value, 1.0 - one.high), 1.0 - one.low)
    return value


def _value(result: TrialResult) -> float:
    """Return an objective as Optuna takes it.

    Precision or recall of nothing is undefined: 0, the worst that a metric to maximise can be.
    """
    return 0.0 if result.objective is None else result.objective


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's log and its notes on experimental options to itself; restore them after."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def study_errors(storage: str | Database) -> Iterator[None]:
    """Turn what Optuna and its database raise into one line."""
    url = as_database(storage).url
    try:
        with database_errors(url):
            yield
    except optuna.exceptions.StorageInternalError as error:
        if isinstance(error.__cause__, DBAPIError):
            raise as_store_error(url, error.__cause__) from error
        raise StoreError(f"the study's database failed: {error.__cause__ or error}") from error
