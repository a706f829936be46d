"""When a search ends before its last trial: target reached, no more progress, out of time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trademl.errors import ConfigError
from trademl.train.request import choice, optional_count, optional_section
from trademl.train.trials import Direction, TrialResult

Ending = Literal["all_trials", "target_reached", "not_improving", "converged", "out_of_time"]

_MAX_JOBS = 10_000
_CONVERGED_AFTER = 10  # trials in a row
_CONVERGED_GAIN = 1e-3  # of the best objective's size


@dataclass(frozen=True)
class Completion:
    """What ends a search early, looked at after every batch.

    Parameters
    ----------
    target : float or None
        End once a trial's objective is at least this good.
    max_idle : int or None
        End after this many trials in a row that were no better than the best before them.
    on_convergence : bool
        End after ten trials in a row that together gained less than a thousandth of the best
        objective. SageMaker does not publish its own rule.
    max_runtime_s : int or None
        Begin no batch once the batches so far took this long.
    """

    target: float | None = None
    max_idle: int | None = None
    on_convergence: bool = False
    max_runtime_s: int | None = None

    @property
    def can_end(self) -> bool:
        """Whether a search without a number of trials would come to an end."""
        return self != Completion()


def parse_completion(job: Mapping[str, Any], limits: Mapping[str, Any]) -> Completion:
    """Return what ends the search of a request.

    Parameters
    ----------
    job : mapping
        May hold ``TuningJobCompletionCriteria``.
    limits : mapping
        The request's ``ResourceLimits``; may hold ``MaxRuntimeInSeconds``.

    Raises
    ------
    ConfigError
        If a value is out of range or a key unknown; it is named.
    """
    criteria = optional_section(
        job,
        "TuningJobCompletionCriteria",
        ("TargetObjectiveMetricValue", "BestObjectiveNotImproving", "ConvergenceDetected"),
    )
    idle_key = "MaxNumberOfTrainingJobsNotImproving"
    idle = optional_section(criteria, "BestObjectiveNotImproving", (idle_key,))
    convergence = optional_section(criteria, "ConvergenceDetected", ("CompleteOnConvergence",))
    onward = choice(convergence, "CompleteOnConvergence", ("Disabled", "Enabled"), "Disabled")
    return Completion(
        target=_target(criteria),
        max_idle=optional_count(idle, idle_key, _MAX_JOBS, low=3),
        on_convergence=onward == "Enabled",
        max_runtime_s=optional_count(limits, "MaxRuntimeInSeconds", 15_768_000, low=120),
    )


def _target(criteria: Mapping[str, Any]) -> float | None:
    key = "TargetObjectiveMetricValue"
    if key not in criteria:
        return None
    try:
        target = float(criteria[key])
    except (TypeError, ValueError):
        target = math.nan
    if not math.isfinite(target):
        raise ConfigError(f"{key} is {criteria[key]!r}, expected a number")
    return target


def ending(
    completion: Completion, trials: Sequence[TrialResult], *, runtime_s: float
) -> Ending | None:
    """Return what ends a search after these trials, or None where it goes on.

    Parameters
    ----------
    trials : sequence of TrialResult
        All so far, in order of their numbers.
    runtime_s : float
        What their batches took, in seconds.
    """
    if not trials:
        return None
    if completion.target is not None and _is_reached(completion.target, trials):
        return "target_reached"
    if completion.max_idle is not None and n_idle(trials) >= completion.max_idle:
        return "not_improving"
    if completion.on_convergence and _has_converged(trials):
        return "converged"
    if completion.max_runtime_s is not None and runtime_s >= completion.max_runtime_s:
        return "out_of_time"
    return None


def n_idle(trials: Sequence[TrialResult]) -> int:
    """Return how many trials in a row, up to the last one, were no better than the best before."""
    ranks = [trial.rank for trial in trials]
    if not ranks or (best := max(ranks)) == -math.inf:
        return len(ranks)
    return len(ranks) - 1 - ranks.index(best)


def _is_reached(target: float, trials: Sequence[TrialResult]) -> bool:
    def is_reached(value: float, direction: Direction) -> bool:
        return value >= target if direction == "Maximize" else value <= target

    return any(t.objective is not None and is_reached(t.objective, t.direction) for t in trials)


def _has_converged(trials: Sequence[TrialResult]) -> bool:
    ranks = [trial.rank for trial in trials]
    before = max(ranks[:-_CONVERGED_AFTER], default=-math.inf)
    if before == -math.inf:
        return False
    return max(ranks) - before < _CONVERGED_GAIN * max(abs(before), _CONVERGED_GAIN)
