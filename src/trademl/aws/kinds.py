"""The two kinds of job, by the words that SageMaker's API has for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trademl.aws.failures import aws_errors, is_not_found
from trademl.aws.plan import JobPlan, Kind
from trademl.errors import CloudError
from trademl.train.hyperparameters import PLATFORM_KEYS

FINISHED = ("Completed", "Failed", "Stopped")


@dataclass(frozen=True)
class JobKind:
    """How one kind of job is started, looked at and stopped."""

    words: str
    noun: str
    command: str
    console: str

    @property
    def name_key(self) -> str:
        """Field of the name in requests and answers."""
        return f"{self.noun}Name"

    @property
    def status_key(self) -> str:
        """Field of the status in an answer."""
        return f"{self.noun}Status"

    def create(self, sagemaker: Any, request: Mapping[str, Any]) -> None:
        """Start a job."""
        getattr(sagemaker, f"create_{self.command}")(**request)

    def describe(self, sagemaker: Any, name: str) -> dict[str, Any]:
        """Return the description of a job."""
        found: dict[str, Any] = getattr(sagemaker, f"describe_{self.command}")(
            **{self.name_key: name}
        )
        return found

    def find(self, sagemaker: Any, name: str) -> dict[str, Any] | None:
        """Return the description of a job, or None where there is none of that name."""
        from botocore.exceptions import ClientError

        with aws_errors(f"looking for {self.words} {name}"):
            try:
                return self.describe(sagemaker, name)
            except ClientError as error:
                if is_not_found(error):
                    return None
                raise

    def stop(self, sagemaker: Any, name: str) -> None:
        """Ask for a job's end; SageMaker keeps the model that the container leaves behind."""
        with aws_errors(f"stopping {name}"):
            getattr(sagemaker, f"stop_{self.command}")(**{self.name_key: name})

    def status(self, described: Mapping[str, Any]) -> str:
        """Return the status of a description."""
        return str(described[self.status_key])

    def is_finished(self, described: Mapping[str, Any]) -> bool:
        """Return whether nothing more will happen to the job."""
        return self.status(described) in FINISHED


KINDS: dict[Kind, JobKind] = {
    "training": JobKind("training job", "TrainingJob", "training_job", "jobs"),
    "tuning": JobKind(
        "tuning job", "HyperParameterTuningJob", "hyper_parameter_tuning_job", "hyper-tuning-jobs"
    ),
}


def console_url(plan: JobPlan) -> str:
    """Return the address of the job's page in AWS's console."""
    region, kind = plan.place.config.region, KINDS[plan.kind]
    return (
        f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}"
        f"#/{kind.console}/{plan.name}"
    )


def check_same(plan: JobPlan, described: Mapping[str, Any]) -> None:
    """Refuse a job that has the plan's name and is another job.

    Raises
    ------
    CloudError
        The message names what differs.
    """
    expected, found = _identity(plan.request), _identity(described)
    for what, value in expected.items():
        if found[what] != value:
            raise CloudError(
                f"job {plan.name} exists in {plan.place.config.region} and has another {what}: "
                "give this one another HyperParameterTuningJobName, or another dataset or seed"
            )


def _identity(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells two jobs apart, of a request or of a description."""
    definition = job.get("TrainingJobDefinition", job)
    given = definition.get("StaticHyperParameters", definition.get("HyperParameters", {}))
    tuned = job.get("HyperParameterTuningJobConfig", {})
    return {
        "image": definition["AlgorithmSpecification"].get("TrainingImage"),
        "set of hyperparameters": {k: v for k, v in given.items() if k not in PLATFORM_KEYS},
        "input": [
            (c["ChannelName"], c["DataSource"]["S3DataSource"]["S3Uri"])
            for c in definition.get("InputDataConfig", [])
        ],
        "set of ranges": _ends(tuned.get("ParameterRanges", {})),
        "objective": tuned.get("HyperParameterTuningJobObjective"),
    }


def _ends(ranges: Mapping[str, Any]) -> dict[str, Any]:
    """Return each range's ends; a description may spell out defaults and empty lists besides."""
    return {
        entry["Name"]: entry.get("Values", (entry.get("MinValue"), entry.get("MaxValue")))
        for kind, entries in ranges.items()
        if kind.endswith("ParameterRanges")
        for entry in entries
    }
