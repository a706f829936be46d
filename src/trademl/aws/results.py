"""What a finished job left in AWS, brought home as the trials of a study."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trademl.aws.clients import Clients
from trademl.aws.failures import aws_errors, code_of
from trademl.aws.kinds import KINDS
from trademl.aws.plan import JobPlan
from trademl.errors import CloudError, StoreError
from trademl.ports import Progress
from trademl.train.hyperparameters import PLATFORM_KEYS, LinearLearnerParameters
from trademl.train.metrics import Metrics
from trademl.train.model import LinearModel, load_model, save_model
from trademl.train.trials import TrialResult

_SPLITS = ("train:", "validation:", "test:")


@dataclass(frozen=True)
class FetchedTrial:
    """A trial, and the facts about its training job that only AWS has."""

    result: TrialResult
    job: Mapping[str, Any]


def fetch_trials(
    plan: JobPlan,
    described: Mapping[str, Any],
    clients: Clients,
    folder: Path,
    columns: Sequence[str],
    progress: Progress,
) -> list[FetchedTrial]:
    """Return the trials of a finished job in the order in which their jobs were started.

    Parameters
    ----------
    described : mapping
        Of the job, as it ended.
    folder : Path
        Gets the archive of every model; those that lie there already are not fetched again.
    columns : sequence of str
        Of the dataset.

    Raises
    ------
    CloudError
        If AWS refuses or cannot be reached.
    """
    if plan.kind == "training":
        return [_fetch(0, plan, described, None, clients, folder, columns)]
    children = list(_children(plan, clients))
    progress.step("results", f"{len(children)} training jobs of {plan.name}")
    fetched = []
    for number, child in enumerate(children):
        with aws_errors(f"looking at {child['TrainingJobName']}"):
            job = KINDS["training"].describe(clients.sagemaker, child["TrainingJobName"])
        fetched.append(_fetch(number, plan, job, child, clients, folder, columns))
        progress.advance(number + 1, len(children))
    progress.done(f"{len(fetched)} trials")
    return fetched


def _children(plan: JobPlan, clients: Clients) -> Iterator[dict[str, Any]]:
    """Yield the summaries of a tuning job's children by name, which is by number.

    Sorted by the objective, SageMaker would leave out those that have none.
    """
    pages = clients.sagemaker.get_paginator(
        "list_training_jobs_for_hyper_parameter_tuning_job"
    ).paginate(HyperParameterTuningJobName=plan.name, SortBy="Name", SortOrder="Ascending")
    with aws_errors(f"listing the training jobs of {plan.name}"):
        for page in pages:
            yield from page["TrainingJobSummaries"]


def _fetch(
    number: int,
    plan: JobPlan,
    job: Mapping[str, Any],
    summary: Mapping[str, Any] | None,
    clients: Clients,
    folder: Path,
    columns: Sequence[str],
) -> FetchedTrial:
    metrics = _metrics(job)
    path, failure = _model(number, job, clients, folder, columns)
    given = job.get("HyperParameters", {})
    result = TrialResult(
        number=number,
        hyperparameters={k: str(v) for k, v in given.items() if k not in PLATFORM_KEYS},
        objective=_objective(plan, metrics, summary or {}),
        direction=plan.objective.direction,
        metrics=metrics,
        model_path=path,
        failure=failure,
    )
    return FetchedTrial(result, _facts(job))


def _metrics(job: Mapping[str, Any]) -> Metrics:
    """Return the final figures under Linear Learner's names; None where one is not finite."""
    found: Metrics = {}
    for entry in job.get("FinalMetricDataList", []):
        name, value = str(entry["MetricName"]), float(entry["Value"])
        if name.startswith(_SPLITS):
            found[name] = value if math.isfinite(value) else None
    return found


def _objective(plan: JobPlan, metrics: Metrics, summary: Mapping[str, Any]) -> float | None:
    said = summary.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value")
    value = metrics.get(plan.objective.metric) if said is None else float(said)
    return value if value is not None and math.isfinite(value) else None


def _facts(job: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": job["TrainingJobName"],
        "status": job["TrainingJobStatus"],
        "secondary_status": job["SecondaryStatus"],
        "billable_s": job.get("BillableTimeInSeconds"),
        "training_s": job.get("TrainingTimeInSeconds"),
        "model_uri": job.get("ModelArtifacts", {}).get("S3ModelArtifacts"),
    }


def _model(
    number: int, job: Mapping[str, Any], clients: Clients, folder: Path, columns: Sequence[str]
) -> tuple[Path | None, str | None]:
    """Return where a trial's model lies, or why there is none to be read."""
    if job["TrainingJobStatus"] == "Failed":
        return None, " ".join(str(job.get("FailureReason", "no reason given")).split())
    path = folder / f"trial-{number:02d}.tar.gz"
    if path.exists():
        return path, None
    uri = job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    archive = folder / f"trial-{number:02d}.sagemaker.tar.gz"
    if not uri or not (archive.exists() or fetch_object(uri, archive, clients.s3)):
        return None, f"{job['TrainingJobStatus']} without a model in S3 ({uri or 'no address'})"
    failure = _keep(archive, path, job, columns)
    return (None, failure) if failure else (path, None)


def _keep(archive: Path, path: Path, job: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """Put a model that trademl can read at ``path``; return why it cannot, where it cannot.

    The archive of an image of ours becomes that file as it is. What is read out of an artifact of
    AWS's Linear Learner is written anew, and its archive kept beside it.
    """
    try:
        model = load_model(archive)
    except StoreError as error:
        reason = str(error).removeprefix(f"{archive}").lstrip(" :")
        return f"its model cannot be read and is kept as {archive.name}: {reason}"
    if not isinstance(model, LinearModel):
        return f"it is kept as {archive.name}: selection judges binary classifiers only"
    if len(model.columns) != len(columns):
        return f"its model has {len(model.columns)} columns, the dataset {len(columns)}"
    if model.columns == tuple(columns):
        archive.replace(path)
        return None
    if model.columns != tuple(f"x{i}" for i in range(len(columns))):  # what stands in for names
        return f"its model names other columns than the dataset, first {model.columns[0]}"
    given = {k: v for k, v in job.get("HyperParameters", {}).items() if k not in PLATFORM_KEYS}
    known = LinearLearnerParameters.from_strings(given).as_dict()
    hyperparameters = {**known, **model.hyperparameters}
    save_model(replace(model, columns=tuple(columns), hyperparameters=hyperparameters), path)
    return None


def fetch_object(uri: str, path: Path, s3: Any) -> bool:
    """Bring an object home, complete or not at all; return whether it was there.

    Raises
    ------
    CloudError
        If S3 refuses or cannot be reached, or ``uri`` is none of S3.
    """
    from botocore.exceptions import ClientError

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise CloudError(f"{uri!r} is no object in S3, expected s3://bucket/key")
    part = path.with_name(f".{path.name}.part")
    with aws_errors(f"fetching {uri}"):
        try:
            s3.download_file(bucket, key, str(part))
        except ClientError as error:
            if code_of(error) in ("404", "NoSuchKey"):
                return False
            raise
    part.replace(path)
    return True
