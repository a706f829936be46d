"""What a finished job left in AWS, brought home as the trials of a study."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trademl.aws.clients import Clients
from trademl.aws.failures import aws_errors, code_of
from trademl.aws.kept_models import keep_model
from trademl.aws.kinds import KINDS
from trademl.aws.model_files import split_uri
from trademl.aws.plan import JobPlan
from trademl.ports import Progress
from trademl.store.artifacts import Artifact
from trademl.train.hyperparameters import PLATFORM_KEYS
from trademl.train.metrics import Metrics
from trademl.train.trials import TrialResult

_SPLITS = ("train:", "validation:", "test:")
_FINAL = ":final"


@dataclass(frozen=True)
class FetchedTrial:
    """A trial, and the facts about its training job that only AWS has."""

    result: TrialResult
    job: Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """A finished job and where its results go.

    Parameters
    ----------
    plan : JobPlan
    dataset : Artifact
        That it was trained on.
    clients : Clients
    folder : Path
        Gets the archive of every model; one that lies there already is not fetched again.
    """

    plan: JobPlan
    dataset: Artifact
    clients: Clients
    folder: Path

    def fetch(self, described: Mapping[str, Any], progress: Progress) -> list[FetchedTrial]:
        """Return the trials in the order in which their jobs were started.

        Parameters
        ----------
        described : mapping
            Of the job, as it ended.

        Raises
        ------
        CloudError
            If AWS refuses or cannot be reached.
        """
        if self.plan.kind == "training":
            return [self._trial(0, described, None)]
        children = list(self._children())
        progress.step("results", f"{len(children)} training jobs of {self.plan.name}")
        fetched = []
        for number, child in enumerate(children):
            name = child["TrainingJobName"]
            with aws_errors(f"looking at {name}"):
                job = KINDS["training"].describe(self.clients.sagemaker, name)
            fetched.append(self._trial(number, job, _said_objective(child)))
            progress.advance(number + 1, len(children))
        progress.done(f"{len(fetched)} trials")
        return fetched

    def _children(self) -> Iterator[dict[str, Any]]:
        """Yield the summaries of a tuning job's children by name, which is by number.

        Sorted by the objective, SageMaker would leave out those that have none.
        """
        pages = self.clients.sagemaker.get_paginator(
            "list_training_jobs_for_hyper_parameter_tuning_job"
        ).paginate(HyperParameterTuningJobName=self.plan.name, SortBy="Name", SortOrder="Ascending")
        with aws_errors(f"listing the training jobs of {self.plan.name}"):
            for page in pages:
                yield from page["TrainingJobSummaries"]

    def _trial(self, number: int, job: Mapping[str, Any], said: float | None) -> FetchedTrial:
        metrics = _metrics(job)
        objective = metrics.get(self.plan.objective.metric) if said is None else said
        given = job.get("HyperParameters", {})
        hyperparameters = {k: str(v) for k, v in given.items() if k not in PLATFORM_KEYS}
        path, failure = self._model(number, job, hyperparameters, metrics)
        result = TrialResult(
            number=number,
            hyperparameters=hyperparameters,
            objective=_finite(objective),
            direction=self.plan.objective.direction,
            metrics=metrics,
            model_path=path,
            failure=failure,
            is_stopped=job["TrainingJobStatus"] == "Stopped",
        )
        return FetchedTrial(result, _facts(job))

    def _model(
        self,
        number: int,
        job: Mapping[str, Any],
        hyperparameters: Mapping[str, str],
        metrics: Metrics,
    ) -> tuple[Path | None, str | None]:
        """Return where a trial's model lies, or why there is none to be read."""
        if job["TrainingJobStatus"] == "Failed":
            return None, " ".join(str(job.get("FailureReason", "no reason given")).split())
        path = self.folder / f"trial-{number:02d}.tar.gz"
        if path.exists():
            return path, None
        uri = job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
        archive = self.folder / f"trial-{number:02d}.sagemaker.tar.gz"
        if not uri or not (archive.exists() or fetch_object(uri, archive, self.clients.s3)):
            return None, f"{job['TrainingJobStatus']} without a model in S3 ({uri or 'no address'})"
        failure = keep_model(archive, path, self.dataset, hyperparameters, metrics)
        return (None, failure) if failure else (path, None)


def _said_objective(summary: Mapping[str, Any]) -> float | None:
    value = summary.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value")
    return None if value is None else float(value)


def _metrics(job: Mapping[str, Any]) -> Metrics:
    """Return the final figures under the names that a local trial has; None where not finite.

    ``validation:objective_loss`` of SageMaker is the last epoch's of model 0, and that of the model
    that was kept stands under ``validation:objective_loss:final``: here the latter takes its name.
    """
    found = {
        str(entry["MetricName"]): _finite(float(entry["Value"]))
        for entry in job.get("FinalMetricDataList", [])
        if str(entry["MetricName"]).startswith(_SPLITS)
    }
    kept = {name.removesuffix(_FINAL): v for name, v in found.items() if name.endswith(_FINAL)}
    return {**{n: v for n, v in found.items() if not n.endswith(_FINAL)}, **kept}


def _finite(value: float | None) -> float | None:
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


def fetch_object(uri: str, path: Path, s3: Any) -> bool:
    """Bring an object home, complete or not at all; return whether it was there.

    Raises
    ------
    CloudError
        If S3 refuses or cannot be reached, or ``uri`` is none of S3.
    """
    from botocore.exceptions import ClientError

    bucket, key = split_uri(uri)
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
