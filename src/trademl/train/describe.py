"""What SageMaker would say of a study: the shapes of its Describe calls, from a local artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from trademl.store.artifacts import Artifact
from trademl.store.identity import digest_bytes
from trademl.train.completion import n_idle
from trademl.train.studies import read_times, read_trials

_STATUSES = {"out_of_time": "Stopped"}  # how a search ended; anything else is Completed
_ARN = "arn:trademl:local"


def describe_tuning_job(study: Artifact) -> dict[str, Any]:
    """Return a search in the shape of ``DescribeHyperParameterTuningJob``.

    Parameters
    ----------
    study : Artifact
        Of `trademl.train.jobs.tune_dataset`.

    Returns
    -------
    dict
        As JSON can hold it; times are ISO 8601 texts, hyperparameters strings. Trials begin when
        their batch is drawn up and end when it is written down.
    """
    found = study.metrics
    trials = found["trials"]
    name = found["name"] or study.id
    statuses = Counter(trial["status"] for trial in trials)
    n_scored = sum(trial["objective"] is not None for trial in trials)
    times = read_times(study)
    began, ended = min(began for began, _ in times), max(ended for _, ended in times)
    described = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobArn": f"{_ARN}:hyper-parameter-tuning-job/{study.id}",
        "HyperParameterTuningJobStatus": _STATUSES.get(found["ending"], "Completed"),
        "CreationTime": began,
        "HyperParameterTuningEndTime": ended,
        "LastModifiedTime": ended,
        "TrainingJobStatusCounters": {
            "Completed": statuses["Completed"],
            "InProgress": 0,
            "RetryableError": 0,
            "NonRetryableError": statuses["Failed"],
            "Stopped": statuses["Stopped"],
        },
        "ObjectiveStatusCounters": {
            "Succeeded": n_scored,
            "Pending": 0,
            "Failed": len(trials) - n_scored,
        },
        "BestTrainingJob": training_job_summary(study, trials[found["best_trial"]]),
        "TuningJobCompletionDetails": {
            "NumberOfTrainingJobsObjectiveNotImproving": n_idle(read_trials(study))
        },
        "ConsumedResources": {"RuntimeInSeconds": round(sum(map(_seconds, times)))},
    }
    if best := found["overall_best"]:
        described["OverallBestTrainingJob"] = _summary(
            best["trial"], found, job_name=best["name"] or best["study"], study_id=best["study"]
        )
    return described


def describe_training_job(study: Artifact) -> dict[str, Any]:
    """Return a single job in the shape of ``DescribeTrainingJob``, as JSON can hold it.

    Parameters
    ----------
    study : Artifact
        Of `trademl.train.jobs.train_dataset`.
    """
    (trial,) = study.metrics["trials"]
    name = training_job_name(study.id, study.id, 0)
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"{_ARN}:training-job/{name}",
        "TrainingJobStatus": trial["status"],
        "HyperParameters": trial["hyperparameters"],
        "FinalMetricDataList": [
            {"MetricName": metric, "Value": value}
            for metric, value in trial["metrics"].items()
            if value is not None
        ],
        "ModelArtifacts": {"S3ModelArtifacts": study.file(trial["file"]).as_uri()},
    }


def training_job_summary(study: Artifact, trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return one trial of a search in the shape of ``HyperParameterTrainingJobSummary``."""
    found = study.metrics
    summary = _summary(trial, found, job_name=found["name"] or study.id, study_id=study.id)
    began, ended = read_times(study)[trial["number"]]
    return summary | {"CreationTime": began, "TrainingStartTime": began, "TrainingEndTime": ended}


def training_job_name(tuning_job: str, study_id: str, number: int) -> str:
    """Return a trial's name as SageMaker makes it: the search's, its number from 1, eight digits.

    Examples
    --------
    >>> training_job_name("btc", "study-0123456789ab", 0)
    'btc-001-b68a3020'
    """
    digits = digest_bytes(f"{study_id}/{number}".encode())[:8]
    return f"{tuning_job}-{number + 1:03d}-{digits}"


def _summary(
    trial: Mapping[str, Any], found: Mapping[str, Any], *, job_name: str, study_id: str
) -> dict[str, Any]:
    name = training_job_name(job_name, study_id, trial["number"])
    summary = {
        "TrainingJobName": name,
        "TrainingJobArn": f"{_ARN}:training-job/{name}",
        "TrainingJobStatus": trial["status"],
        "TunedHyperParameters": {n: trial["hyperparameters"][n] for n in found["tuned"]},
        "ObjectiveStatus": "Failed" if trial["objective"] is None else "Succeeded",
    }
    if trial["objective"] is not None:
        summary["FinalHyperParameterTuningJobObjectiveMetric"] = {
            "Type": found["direction"],
            "MetricName": found["objective"],
            "Value": trial["objective"],
        }
    if trial["failure"] is not None:
        summary["FailureReason"] = trial["failure"][:1024]
    return summary


def _seconds(span: Sequence[str]) -> float:
    began, ended = map(datetime.fromisoformat, span)
    return (ended - began).total_seconds()
