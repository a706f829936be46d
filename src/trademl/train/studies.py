"""A study as its artifact holds it: the figures of its manifest, written and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trademl.errors import StoreError
from trademl.store.artifacts import Artifact, write_atomically
from trademl.train.search_space import TuningConfig
from trademl.train.trials import Objective, TrialResult
from trademl.train.warm_start import Parent

if TYPE_CHECKING:
    from trademl.train.tuning import Search

TIMES_FILE = "times.json"


def study_metrics(
    objective: Objective, trials: Sequence[TrialResult], warnings: Sequence[str]
) -> dict[str, Any]:
    """Return the figures of a study, as JSON can hold them."""
    return {
        "name": None,
        "objective": objective.metric,
        "direction": objective.direction,
        "warnings": list(warnings),
        "best_trial": best_of(trials).number,
        "trials": [_trial_facts(trial) for trial in trials],
    }


def search_metrics(
    search: Search, config: TuningConfig, parents: Sequence[Parent], *, study_id: str
) -> dict[str, Any]:
    """Return the figures of a study that a search made.

    Returns
    -------
    dict
        As `study_metrics`; and how the search ended, and the best trial of it and its parents
        together where they share data and algorithm.
    """
    facts = study_metrics(config.objective, search.trials, config.warnings)
    return facts | {
        "name": config.name,
        "strategy": config.strategy,
        "ending": search.ending,
        "tuned": [one.name for one in config.ranges],
        "overall_best": _overall_best(search, config, parents, study_id),
    }


def read_trials(study: Artifact) -> list[TrialResult]:
    """Return the trials of a study, their models in its folder."""
    metrics = study.metrics
    return [
        TrialResult(
            number=trial["number"],
            hyperparameters=trial["hyperparameters"],
            objective=trial["objective"],
            direction=metrics["direction"],
            metrics=trial["metrics"],
            model_path=study.file(trial["file"]) if trial["file"] else None,
            failure=trial["failure"],
            losses=tuple(trial["losses"]),
            is_stopped=trial["status"] == "Stopped",
        )
        for trial in metrics["trials"]
    ]


def write_times(search: Search, folder: Path) -> None:
    """Write when each trial began and ended, beside the figures, which do not depend on the day."""
    spans = [[began.isoformat(), ended.isoformat()] for began, ended in search.spans]
    write_atomically(folder / TIMES_FILE, json.dumps(spans).encode())


def read_times(study: Artifact) -> list[tuple[str, str]]:
    """Return when each trial of a search began and ended, as ISO 8601 texts.

    Raises
    ------
    StoreError
        If the file is damaged, or the study was no search.
    """
    path = study.file(TIMES_FILE)
    try:
        return [(str(began), str(ended)) for began, ended in json.loads(path.read_bytes())]
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}): delete its folder and run again") from error


def best_of(trials: Sequence[TrialResult]) -> TrialResult:
    """Return the trial with the best objective, the first one of equals."""
    return max(trials, key=lambda trial: (trial.rank, -trial.number))


def _overall_best(
    search: Search, config: TuningConfig, parents: Sequence[Parent], study_id: str
) -> Mapping[str, Any] | None:
    if config.warm_start is None or config.warm_start.kind != "IdenticalDataAndAlgorithm":
        return None
    own = (study_id, config.name, search.trials)
    searches = [own, *((p.study_id, p.config.name, p.trials) for p in parents)]
    study, name, trials = max(searches, key=lambda one: best_of(one[2]).rank)
    return {"study": study, "name": name, "trial": _trial_facts(best_of(trials))}


def _trial_facts(trial: TrialResult) -> dict[str, Any]:
    return {
        "number": trial.number,
        "status": trial.status,
        "objective": trial.objective,
        "hyperparameters": dict(trial.hyperparameters),
        "metrics": dict(trial.metrics),
        "losses": list(trial.losses),
        "file": trial.model_path.name if trial.model_path else None,
        "failure": trial.failure,
    }
