"""A tuning job's configuration: the JSON that SageMaker takes, unchanged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from trademl.errors import ConfigError
from trademl.train.completion import Completion, parse_completion
from trademl.train.early_stopping import Hyperband, parse_hyperband
from trademl.train.hyperparameters import LinearLearnerParameters, as_text, closest
from trademl.train.metrics import PUBLISHED
from trademl.train.ranges import CategoryRange, Range, only_local, parse_ranges
from trademl.train.request import (
    check_keys,
    choice,
    count,
    expect,
    optional_count,
    section,
)
from trademl.train.trials import Direction, Objective
from trademl.train.warm_start import WarmStart, parse_warm_start

Strategy = Literal["Bayesian", "Random", "Grid", "Hyperband"]

VALIDATION_LOSS = Objective("validation:objective_loss", "Minimize")

_STRATEGIES = ("Bayesian", "Random", "Grid", "Hyperband")
_MAX_JOBS, _MAX_RANDOM_JOBS, _MAX_PARALLEL = 750, 10_000, 100
_MAX_STATIC = 100
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,31}")
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
_AROUND_KEYS = ("HyperParameterTuningJobName", "WarmStartConfig", "Autotune", "Tags")


@dataclass(frozen=True)
class TuningConfig:
    """A search: what is fixed, what is tuned, what for, how often, and when to end early.

    Parameters
    ----------
    static : dict of str to str
        Hyperparameters of every trial.
    ranges : tuple of Range
        In the order of their names.
    strategy : {"Bayesian", "Random", "Grid", "Hyperband"}
    n_jobs, n_parallel : int
        Trials in all, and in one batch.
    random_seed : int or None
        Of the request; the caller's seed holds where it is None.
    name : str or None
        The tuning job's own, up to 32 characters.
    has_median_rule : bool
        ``TrainingJobEarlyStoppingType`` Auto: end trials that fall behind the median.
    hyperband : Hyperband or None
        Of that strategy.
    warnings : tuple of str
        What a user should know before trusting the search.
    """

    static: dict[str, str]
    ranges: tuple[Range, ...]
    objective: Objective
    strategy: Strategy
    n_jobs: int
    n_parallel: int
    random_seed: int | None = None
    name: str | None = None
    has_median_rule: bool = False
    hyperband: Hyperband | None = None
    completion: Completion = field(default_factory=Completion)
    warm_start: WarmStart | None = None
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
        If a key is unknown (the closest known one is named), missing, out of range, or at odds
        with another.
    """
    expect(request, dict, "the tuning configuration")
    job, static = _job_and_static(request)
    parameters = _read_static(static)
    ranges = parse_ranges(job)
    if both := sorted(r.name for r in ranges if r.name in static):
        raise ConfigError(f"{both[0]} is both in StaticHyperParameters and in ParameterRanges")
    objective = _objective(job, parameters.predictor_type)
    strategy = cast("Strategy", choice(job, "Strategy", _STRATEGIES, "Bayesian"))
    is_hyperband = strategy == "Hyperband"
    if "StrategyConfig" in job and not is_hyperband:
        raise ConfigError(f"StrategyConfig is for the Strategy Hyperband, which is {strategy} here")
    limits = section(
        job,
        "ResourceLimits",
        ("MaxNumberOfTrainingJobs", "MaxParallelTrainingJobs", "MaxRuntimeInSeconds"),
    )
    completion = parse_completion(job, limits)
    return TuningConfig(
        static=static,
        ranges=ranges,
        objective=objective,
        strategy=strategy,
        n_jobs=_n_jobs(limits, strategy, ranges, completion),
        n_parallel=count(limits, "MaxParallelTrainingJobs", _MAX_PARALLEL),
        random_seed=optional_count(job, "RandomSeed", 2**31 - 1, low=0),
        name=_name(request),
        has_median_rule=_has_median_rule(job, strategy, objective),
        hyperband=parse_hyperband(job, parameters.epochs) if is_hyperband else None,
        completion=completion,
        warm_start=parse_warm_start(request),
        warnings=_warnings(objective, ranges),
    )


def _job_and_static(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    if request.get("TrainingJobDefinitions"):
        raise ConfigError(
            "TrainingJobDefinitions tunes several algorithms at once, trademl has one: use "
            "TrainingJobDefinition"
        )
    if request.get("Autotune"):
        raise ConfigError(
            "Autotune lets SageMaker choose ranges and strategy and has no local twin: leave it "
            "out and give ParameterRanges"
        )
    if "HyperParameterTuningJobConfig" in request:
        nested = ("HyperParameterTuningJobConfig", "TrainingJobDefinition")
        check_keys(request, (*nested, *_AROUND_KEYS, "TrainingJobDefinitions"), "the request")
        job = expect(
            request["HyperParameterTuningJobConfig"], dict, "HyperParameterTuningJobConfig"
        )
        definition = expect(request.get("TrainingJobDefinition"), dict, "TrainingJobDefinition")
        check_keys(job, _JOB_KEYS, "HyperParameterTuningJobConfig")
    else:
        known = ("StaticHyperParameters", *_JOB_KEYS, *_AROUND_KEYS)
        check_keys(request, known, "the tuning configuration")
        job = definition = request
    static = expect(definition.get("StaticHyperParameters"), dict, "StaticHyperParameters")
    if len(static) > _MAX_STATIC:
        raise ConfigError(
            f"StaticHyperParameters has {len(static)} entries, expected at most {_MAX_STATIC}"
        )
    return job, {name: as_text(value) for name, value in static.items()}


def _read_static(static: Mapping[str, str]) -> LinearLearnerParameters:
    """Check the static hyperparameters; ``num_models`` is 1 under tuning, whatever it says."""
    kept = {name: text for name, text in static.items() if name != "num_models"}
    return LinearLearnerParameters.from_strings(kept)


def _name(request: Mapping[str, Any]) -> str | None:
    name = request.get("HyperParameterTuningJobName")
    if name is None:
        return None
    if not _NAME.fullmatch(str(name)):
        raise ConfigError(
            f"HyperParameterTuningJobName is {name!r} ({len(str(name))} characters), expected 1 to "
            "32 letters, digits and hyphens, a letter or digit at both ends"
        )
    return str(name)


def _objective(job: Mapping[str, Any], predictor_type: str) -> Objective:
    if "HyperParameterTuningJobObjective" not in job:
        return VALIDATION_LOSS
    named = section(job, "HyperParameterTuningJobObjective", ("MetricName", "Type"))
    metric, direction = str(named.get("MetricName")), named.get("Type")
    known = {
        f"{split}:{name}": best
        for split in ("validation", "test")
        for name, best in PUBLISHED[predictor_type].items()
    }
    if metric not in known:
        raise ConfigError(
            f"MetricName {metric!r} is unknown for a {predictor_type}{closest(metric, known)}"
        )
    expected: Direction = "Maximize" if known[metric] == "Maximize" else "Minimize"
    if direction != expected:
        raise ConfigError(f"Type of the objective {metric} is {direction!r}, expected {expected!r}")
    return Objective(metric, expected)


def _n_jobs(
    limits: Mapping[str, Any],
    strategy: Strategy,
    ranges: tuple[Range, ...],
    completion: Completion,
) -> int:
    key = "MaxNumberOfTrainingJobs"
    most = _MAX_RANDOM_JOBS if strategy == "Random" else _MAX_JOBS
    if strategy == "Grid":
        return _grid_size(limits, ranges)
    if key not in limits and completion.can_end:
        return most
    return count(limits, key, most)


def _grid_size(limits: Mapping[str, Any], ranges: tuple[Range, ...]) -> int:
    if numbers := [r.name for r in ranges if not isinstance(r, CategoryRange)]:
        raise ConfigError(
            f"Strategy Grid takes CategoricalParameterRanges only: list the Values of {numbers[0]}"
        )
    size = math.prod(len(r.values) for r in ranges if isinstance(r, CategoryRange))
    if size > _MAX_JOBS:
        raise ConfigError(f"the grid has {size} combinations, expected at most {_MAX_JOBS}")
    if optional_count(limits, "MaxNumberOfTrainingJobs", _MAX_JOBS) not in (None, size):
        found = limits["MaxNumberOfTrainingJobs"]
        raise ConfigError(
            f"MaxNumberOfTrainingJobs is {found}, the grid has {size} combinations: leave it out"
        )
    return size


def _has_median_rule(job: Mapping[str, Any], strategy: Strategy, objective: Objective) -> bool:
    key = "TrainingJobEarlyStoppingType"
    is_on = choice(job, key, ("Off", "Auto"), "Off") == "Auto"
    if is_on and strategy == "Hyperband":
        raise ConfigError(f"{key} is Auto, Hyperband stops trials by itself: set it to Off")
    if (is_on or strategy == "Hyperband") and objective != VALIDATION_LOSS:
        who = f"{key} Auto" if is_on else "Strategy Hyperband"
        raise ConfigError(
            f"{who} needs an objective that each epoch reports, and {objective.metric} is none: "
            f"set MetricName to {VALIDATION_LOSS.metric}"
        )
    return is_on


def _warnings(objective: Objective, ranges: tuple[Range, ...]) -> tuple[str, ...]:
    warnings = []
    if objective.metric.startswith("test:"):
        instead = objective.metric.replace("test:", "validation:")
        warnings.append(
            f"leak: the objective {objective.metric} chooses the model on the test split, so that "
            f"no untouched data are left to judge it: tune on {instead}"
        )
    if local := only_local(ranges):
        warnings.append(
            f"only here: {', '.join(local)} has listed values, which SageMaker's Linear Learner "
            "takes as a range of numbers alone"
        )
    return tuple(warnings)
