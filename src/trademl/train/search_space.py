"""A tuning job's configuration: the JSON that SageMaker takes, unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trademl.errors import ConfigError
from trademl.train.hyperparameters import LinearLearnerParameters, as_text, closest
from trademl.train.metrics import DIRECTIONS
from trademl.train.ranges import Range, parse_ranges
from trademl.train.request import check_keys, count, expect, section
from trademl.train.trials import Direction, Objective

OBJECTIVES = {
    f"{split}:{metric}": direction
    for split in ("validation", "test")
    for metric, direction in DIRECTIONS.items()
}
_MAX_JOBS = 750

_JOB_KEYS = (
    "Strategy",
    "HyperParameterTuningJobObjective",
    "ResourceLimits",
    "ParameterRanges",
    "RandomSeed",
    "TrainingJobEarlyStoppingType",
    "StrategyConfig",
    "TuningJobCompletionCriteria",
)
_REQUEST_KEYS = (
    "HyperParameterTuningJobName",
    "HyperParameterTuningJobConfig",
    "TrainingJobDefinition",
    "TrainingJobDefinitions",
    "WarmStartConfig",
    "Autotune",
    "Tags",
)


@dataclass(frozen=True)
class TuningConfig:
    """A search: what is fixed, what is tuned, what for, and how often.

    Parameters
    ----------
    static : dict of str to str
        Hyperparameters of every trial.
    ranges : tuple of Range
        In the order of their names.
    strategy : {"Bayesian", "Random"}
    n_jobs, n_parallel : int
        Trials in all, and in one batch.
    random_seed : int or None
        Of the request; the caller's seed holds where it is None.
    warnings : tuple of str
        What a user should know before trusting the search.
    """

    static: dict[str, str]
    ranges: tuple[Range, ...]
    objective: Objective
    strategy: Literal["Bayesian", "Random"]
    n_jobs: int
    n_parallel: int
    random_seed: int | None = None
    warnings: tuple[str, ...] = ()


def load_tuning_config(path: Path) -> TuningConfig:
    """Read a tuning job's JSON file; see `parse_tuning_config`.

    Raises
    ------
    ConfigError
        If it cannot be read, is no JSON, or `parse_tuning_config` refuses it.
    """
    try:
        request = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    return parse_tuning_config(request)


def parse_tuning_config(request: Mapping[str, Any]) -> TuningConfig:
    """Return the search that a ``CreateHyperParameterTuningJob`` request describes.

    Parameters
    ----------
    request : mapping
        The request itself, with ``HyperParameterTuningJobConfig`` and ``TrainingJobDefinition``
        (of which only ``StaticHyperParameters`` matters here), or the contents of both in one
        flat mapping.

    Raises
    ------
    ConfigError
        If a key is unknown (the closest known one is named), missing, out of range, or asks for
        what is not supported yet.
    """
    expect(request, dict, "the tuning configuration")
    job, static = _job_and_static(request)
    if job.get("TrainingJobEarlyStoppingType", "Off") != "Off":
        raise ConfigError("TrainingJobEarlyStoppingType is not supported yet; supported: Off")
    limits = section(job, "ResourceLimits", ("MaxNumberOfTrainingJobs", "MaxParallelTrainingJobs"))
    ranges = parse_ranges(job)
    _check_names(static, ranges)
    objective = _objective(job)
    return TuningConfig(
        static=static,
        ranges=ranges,
        objective=objective,
        strategy=_strategy(job),
        n_jobs=count(limits, "MaxNumberOfTrainingJobs", _MAX_JOBS),
        n_parallel=count(limits, "MaxParallelTrainingJobs", _MAX_JOBS),
        random_seed=count(job, "RandomSeed", 2**31 - 1, low=0) if "RandomSeed" in job else None,
        warnings=_warnings(objective),
    )


def _job_and_static(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    if "HyperParameterTuningJobConfig" in request:
        check_keys(request, _REQUEST_KEYS, "the request")
        job = expect(
            request["HyperParameterTuningJobConfig"], dict, "HyperParameterTuningJobConfig"
        )
        definition = expect(request.get("TrainingJobDefinition"), dict, "TrainingJobDefinition")
        check_keys(job, _JOB_KEYS, "HyperParameterTuningJobConfig")
    else:
        check_keys(request, ("StaticHyperParameters", *_JOB_KEYS), "the tuning configuration")
        job = definition = request
    static = expect(definition.get("StaticHyperParameters"), dict, "StaticHyperParameters")
    return job, {name: as_text(value) for name, value in static.items()}


def _objective(job: Mapping[str, Any]) -> Objective:
    named = section(job, "HyperParameterTuningJobObjective", ("MetricName", "Type"))
    metric, direction = str(named.get("MetricName")), named.get("Type")
    if metric not in OBJECTIVES:
        raise ConfigError(f"MetricName {metric!r} is unknown{closest(metric, OBJECTIVES)}")
    expected: Direction = "Maximize" if OBJECTIVES[metric] == "Maximize" else "Minimize"
    if direction != expected:
        raise ConfigError(f"Type of the objective {metric} is {direction!r}, expected {expected!r}")
    return Objective(metric, expected)


def _warnings(objective: Objective) -> tuple[str, ...]:
    if not objective.metric.startswith("test:"):
        return ()
    instead = objective.metric.replace("test:", "validation:")
    leak = (
        f"leak: the objective {objective.metric} chooses the model on the test split, so that no "
        f"untouched data are left to judge it: tune on {instead}"
    )
    return (leak,)


def _strategy(job: Mapping[str, Any]) -> Literal["Bayesian", "Random"]:
    strategy = job.get("Strategy", "Bayesian")
    if strategy in ("Grid", "Hyperband"):
        raise ConfigError(f"Strategy {strategy} is not supported yet; supported: Bayesian, Random")
    if strategy not in ("Bayesian", "Random"):
        raise ConfigError(f"Strategy is {strategy!r}, expected Bayesian or Random")
    return "Bayesian" if strategy == "Bayesian" else "Random"


def _check_names(static: Mapping[str, str], ranges: tuple[Range, ...]) -> None:
    if both := sorted(r.name for r in ranges if r.name in static):
        raise ConfigError(f"{both[0]} is both in StaticHyperParameters and in ParameterRanges")
    LinearLearnerParameters.from_strings({k: v for k, v in static.items() if k != "num_models"})
