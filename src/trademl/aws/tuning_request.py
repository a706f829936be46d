"""A tuning job's JSON as SageMaker takes it: checked here, passed on unchanged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trademl.errors import ConfigError
from trademl.train.hyperparameters import as_text, closest
from trademl.train.request import count
from trademl.train.search_space import parse_tuning_config
from trademl.train.trials import Objective

STRATEGIES = ("Bayesian", "Random", "Hyperband", "Grid")
MAX_JOBS = 750
# What SageMaker takes and a local search may not: none of it changes what is tuned.
_CONFIG_EXTRAS = ("StrategyConfig", "TuningJobCompletionCriteria", "TrainingJobEarlyStoppingType")
_REQUEST_EXTRAS = ("WarmStartConfig", "Autotune", "Tags")


@dataclass(frozen=True)
class TuningRequest:
    """A tuning job's own part of a request.

    Parameters
    ----------
    job : mapping
        ``HyperParameterTuningJobConfig``.
    static : mapping of str to str
    objective : Objective
    n_jobs : int
        Training jobs at most.
    name : str
        ``HyperParameterTuningJobName``, or empty.
    warm_start : mapping or None
        ``WarmStartConfig``.
    """

    job: Mapping[str, Any]
    static: Mapping[str, str]
    objective: Objective
    n_jobs: int
    name: str = ""
    warm_start: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def reads_test(self) -> bool:
        """Whether the objective is taken on test rows."""
        return self.objective.metric.startswith("test:")

    @property
    def stops_early(self) -> bool:
        """Whether SageMaker may stop a child job before its end."""
        return self.job.get("TrainingJobEarlyStoppingType") == "Auto"


def read_tuning_request(request: Mapping[str, Any], seed: int) -> TuningRequest:
    """Return a tuning job's part of a request, numbers of ``ResourceLimits`` as integers.

    Raises
    ------
    ConfigError
        If a key, name, range, objective or strategy is refused.
    """
    nested = request.get("HyperParameterTuningJobConfig")
    source: Mapping[str, Any] = nested if isinstance(nested, dict) else request
    strategy = source.get("Strategy")
    if strategy not in STRATEGIES:
        raise ConfigError(f"Strategy {strategy!r} is unknown{closest(str(strategy), STRATEGIES)}")
    common = parse_tuning_config(_common_part(request))
    job = {key: value for key, value in source.items() if key not in _not_of_the_job()}
    job["ParameterRanges"] = _as_texts(source["ParameterRanges"])
    job["ResourceLimits"] = _limits(source)
    job.setdefault("RandomSeed", seed)
    job.setdefault("TrainingJobEarlyStoppingType", "Off")
    if strategy == "Hyperband" and job["TrainingJobEarlyStoppingType"] != "Off":
        raise ConfigError("Strategy Hyperband needs TrainingJobEarlyStoppingType Off")
    return TuningRequest(
        job=job,
        static=common.static,
        objective=common.objective,
        n_jobs=_most_jobs(job),
        name=str(request.get("HyperParameterTuningJobName", "")),
        warm_start=request.get("WarmStartConfig"),
        warnings=common.warnings,
    )


def _common_part(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what both backends read, in the words that the local one knows."""
    common = {key: value for key, value in request.items() if key not in _REQUEST_EXTRAS}
    if isinstance(nested := common.get("HyperParameterTuningJobConfig"), dict):
        return {**common, "HyperParameterTuningJobConfig": _local_words(nested)}
    return _local_words(common)


def _local_words(job: Mapping[str, Any]) -> dict[str, Any]:
    common = {key: value for key, value in job.items() if key not in _CONFIG_EXTRAS}
    common["Strategy"] = "Random"
    limits = common.get("ResourceLimits")
    if isinstance(limits, dict):
        kept = {k: v for k, v in limits.items() if k != "MaxRuntimeInSeconds"}
        common["ResourceLimits"] = {"MaxNumberOfTrainingJobs": 1, **kept}
    return common


def _not_of_the_job() -> tuple[str, ...]:
    return ("StaticHyperParameters", "HyperParameterTuningJobName", *_REQUEST_EXTRAS)


def _as_texts(ranges: Mapping[str, Any]) -> dict[str, Any]:
    """Return ranges with every bound and value as a string, the only type that SageMaker takes."""
    return {
        kind: [
            {
                key: [as_text(v) for v in value] if key == "Values" else as_text(value)
                for key, value in entry.items()
            }
            for entry in entries
        ]
        for kind, entries in ranges.items()
    }


def _limits(source: Mapping[str, Any]) -> dict[str, int]:
    limits = source["ResourceLimits"]
    found = {"MaxParallelTrainingJobs": count(limits, "MaxParallelTrainingJobs", MAX_JOBS)}
    if "MaxNumberOfTrainingJobs" in limits:
        found["MaxNumberOfTrainingJobs"] = count(limits, "MaxNumberOfTrainingJobs", MAX_JOBS)
    elif source["Strategy"] != "Grid":
        raise ConfigError("ResourceLimits lacks MaxNumberOfTrainingJobs: without it costs are open")
    if "MaxRuntimeInSeconds" in limits:
        found["MaxRuntimeInSeconds"] = count(limits, "MaxRuntimeInSeconds", 15_768_000, low=120)
    return found


def _most_jobs(job: Mapping[str, Any]) -> int:
    limit = job["ResourceLimits"].get("MaxNumberOfTrainingJobs")
    if job["Strategy"] != "Grid":
        return int(limit)
    ranges = job["ParameterRanges"]
    if set(ranges) != {"CategoricalParameterRanges"}:
        raise ConfigError("Strategy Grid takes CategoricalParameterRanges only")
    cells = math.prod(len(entry["Values"]) for entry in ranges["CategoricalParameterRanges"])
    if limit not in (None, cells):
        raise ConfigError(
            f"MaxNumberOfTrainingJobs is {limit}, the grid has {cells} cells: set {cells}, or "
            "leave it out"
        )
    return cells
