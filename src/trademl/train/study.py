"""The study that a search keeps in its database, as Optuna sees it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from trademl.errors import StoreError
from trademl.ledger.database import database_errors
from trademl.store.identity import digest_bytes
from trademl.train.determinism import Stream, generator
from trademl.train.ranges import CategoryRange, Range
from trademl.train.search_space import TuningConfig

_FINISHED = (TrialState.COMPLETE, TrialState.FAIL)
_STARTUP_TRIALS = 4  # drawn at random before TPE has anything to learn from
_SETTINGS = "settings"  # user attribute of the study


@contextmanager
def open_study(storage: str, name: str, config: TuningConfig, seed: int) -> Iterator[optuna.Study]:
    """Yield the study, begun or gone on with, holding its complete batches only.

    Raises
    ------
    StoreError
        If a study of that name was begun with other settings.
    """
    options = {"connect_args": {"timeout": 30}} if storage.startswith("sqlite") else {}
    held = optuna.storages.RDBStorage(storage, engine_kwargs=options)
    try:
        yield _resume(held, name, config, _settings(config, seed))
    finally:
        held.remove_session()
        held.engine.dispose()


def _resume(
    held: optuna.storages.RDBStorage, name: str, config: TuningConfig, settings: str
) -> optuna.Study:
    study = _create(held, name, config)
    if study.user_attrs.get(_SETTINGS, settings) != settings:
        raise StoreError(
            f"study {name} was begun with other settings than these: give this search another name"
        )
    study.set_user_attr(_SETTINGS, settings)
    trials = study.get_trials(deepcopy=False)
    kept = _complete_batches(trials, config)
    if len(kept) in (len(trials), config.n_jobs):
        return study
    optuna.delete_study(study_name=name, storage=held)  # Optuna cannot delete a single trial
    study = _create(held, name, config)
    study.set_user_attr(_SETTINGS, settings)
    study.add_trials(kept)
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


def _settings(config: TuningConfig, seed: int) -> str:
    """Return a digest of what decides the trials; more jobs go on with the same ones."""
    decisive = [
        sorted(config.static.items()),
        config.ranges,
        config.objective,
        config.strategy,
        config.n_parallel,
    ]
    return digest_bytes(repr([*decisive, config.random_seed, seed]).encode())[:16]


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


def sampler(config: TuningConfig, seed: int, n_done: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of the batch that follows ``n_done`` trials."""
    base = seed if config.random_seed is None else config.random_seed
    drawn = int(generator(base, Stream.SAMPLER, n_done).integers(2**31))
    if config.strategy == "Random":
        return optuna.samplers.RandomSampler(seed=drawn)
    return optuna.samplers.TPESampler(
        seed=drawn, n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True
    )


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
def study_errors(storage: str) -> Iterator[None]:
    """Turn what Optuna and its database raise into one line."""
    try:
        with database_errors(storage):
            yield
    except optuna.exceptions.StorageInternalError as error:
        raise StoreError(f"the study's database failed: {error.__cause__ or error}") from error
