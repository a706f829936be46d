"""A tuning job's JSON as SageMaker takes it: checked here, passed on unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trademl.train.hyperparameters import as_text
from trademl.train.ranges import only_local
from trademl.train.search_space import TuningConfig, parse_tuning_config
from trademl.train.trials import Objective

_NOT_OF_THE_JOB = (
    "StaticHyperParameters",
    "HyperParameterTuningJobName",
    "WarmStartConfig",
    "Autotune",
    "Tags",
)


@dataclass(frozen=True)
class TuningRequest:
    """A tuning job's own part of a request.

    Parameters
    ----------
    job : mapping
        ``HyperParameterTuningJobConfig``.
    config : TuningConfig
        The same, as the local search reads it.
    warm_start : mapping or None
        ``WarmStartConfig``.
    """

    job: Mapping[str, Any]
    config: TuningConfig
    warm_start: Mapping[str, Any] | None = None

    @property
    def static(self) -> Mapping[str, str]:
        """Hyperparameters of every training job."""
        return self.config.static

    @property
    def objective(self) -> Objective:
        """What the search is for."""
        return self.config.objective

    @property
    def reads_test(self) -> bool:
        """Whether the objective is taken on test rows."""
        return self.objective.metric.startswith("test:")

    @property
    def only_local(self) -> list[str]:
        """Hyperparameters whose ranges AWS's Linear Learner would refuse."""
        return only_local(self.config.ranges)


def read_tuning_request(request: Mapping[str, Any], seed: int) -> TuningRequest:
    """Return a tuning job's part of a request.

    Numbers of ``ResourceLimits`` become integers, bounds and values of ranges strings, the only
    types that SageMaker takes; ``seed`` stands for a missing ``RandomSeed``.

    Raises
    ------
    ConfigError
        If a key, name, range, objective or strategy is refused.
    """
    config = parse_tuning_config(request)
    source = request.get("HyperParameterTuningJobConfig", request)
    job = {key: value for key, value in source.items() if key not in _NOT_OF_THE_JOB}
    job |= {
        "Strategy": config.strategy,
        "HyperParameterTuningJobObjective": {
            "MetricName": config.objective.metric,
            "Type": config.objective.direction,
        },
        "ParameterRanges": _as_texts(source["ParameterRanges"]),
        "ResourceLimits": {
            name: int(as_text(limit)) for name, limit in source["ResourceLimits"].items()
        },
        "RandomSeed": seed if config.random_seed is None else config.random_seed,
    }
    return TuningRequest(
        {"TrainingJobEarlyStoppingType": "Off", **job}, config, request.get("WarmStartConfig")
    )


def _as_texts(ranges: Mapping[str, Any]) -> dict[str, Any]:
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
