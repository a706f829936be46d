"""Batch transform: files in S3 scored by machines that exist for as long as that takes.

The job is named after its model, rows and settings: the same command given twice finds the job
that it started, and brings home what that has written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trademl.aws.budget import Estimate, check_budget
from trademl.aws.clients import Clients, open_clients
from trademl.aws.endpoint_plan import hosted_model
from trademl.aws.failures import aws_errors, is_not_found
from trademl.aws.hosted_models import HostedModel, model_request
from trademl.aws.hosting import HostingConfig, check_hostable
from trademl.aws.kinds import FINISHED, JobKind
from trademl.aws.names import TRAINING_LIMIT, attempt_name, check_name
from trademl.aws.prices import PriceTable
from trademl.aws.records import record_transform
from trademl.aws.settings import AwsConfig, check_launchable
from trademl.aws.upload import upload_files
from trademl.errors import CloudError, ConfigError
from trademl.etl.tables import TableFormat, format_of
from trademl.ledger import Ledger
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, storage_errors
from trademl.store.identity import artifact_id, digest_file

KIND = JobKind("transform job", "TransformJob", "transform_job", "transform-jobs")
MAX_ATTEMPTS = 99
# What the container is sent, and where a file may be cut into requests.
_CONTENT: dict[TableFormat, tuple[str, str]] = {
    "recordio": ("application/x-recordio-protobuf", "RecordIO"),
    "csv": ("text/csv", "Line"),
}


@dataclass(frozen=True)
class TransformPlan:
    """Everything about a transform job that is known before a word is said to AWS.

    Parameters
    ----------
    name : str
    model : HostedModel
    files : mapping of str to Path
        Rows by the name that their object has.
    content_type, split_type, compression : str
        Of every file.
    join_source : bool
        Whether each line of the answer repeats the row that it is of.
    """

    name: str
    model: HostedModel
    files: Mapping[str, Path]
    content_type: str
    split_type: str
    compression: str
    join_source: bool
    strategy: str
    aws: AwsConfig
    hosting: HostingConfig

    @property
    def input_uri(self) -> str:
        """Address below which the rows lie."""
        return self.aws.uri("transform", self.name.partition("-r")[0], "input")

    @property
    def output_uri(self) -> str:
        """Address below which ``<name>.out`` is written."""
        return self.aws.uri("transform", self.name, "output")

    @property
    def request(self) -> dict[str, Any]:
        """The request of ``CreateTransformJob``."""
        hosting = self.hosting
        output: dict[str, Any] = {
            "S3OutputPath": self.output_uri,
            "Accept": "application/jsonlines",
            "AssembleWith": "Line",
        }
        resources: dict[str, Any] = {
            "InstanceType": hosting.instance_type,
            "InstanceCount": hosting.instance_count,
        }
        if self.aws.output_kms_key:
            output["KmsKeyId"] = self.aws.output_kms_key
        if self.aws.volume_kms_key:
            resources["VolumeKmsKeyId"] = self.aws.volume_kms_key
        source = {"S3DataType": "S3Prefix", "S3Uri": f"{self.input_uri}/"}
        found: dict[str, Any] = {
            "TransformJobName": self.name,
            "ModelName": self.model.name,
            "MaxConcurrentTransforms": hosting.max_concurrent,
            "MaxPayloadInMB": hosting.max_payload_mb,
            "BatchStrategy": "MultiRecord",
            "ModelClientConfig": {
                "InvocationsTimeoutInSeconds": 600,
                "InvocationsMaxRetries": 3,
            },
            "TransformInput": {
                "DataSource": {"S3DataSource": source},
                "ContentType": self.content_type,
                "CompressionType": self.compression,
                "SplitType": self.split_type,
            },
            "TransformOutput": output,
            "TransformResources": resources,
            "Tags": model_request(self.model, self.aws, self.strategy)["Tags"],
        }
        if self.join_source:
            found["DataProcessing"] = {"JoinSource": "Input"}
        return found

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Everything that is sent, in order."""
        model = model_request(self.model, self.aws, self.strategy)
        return [{"CreateModel": model}, {"CreateTransformJob": self.request}]


def plan_transform(
    model: Artifact,
    paths: Sequence[Path],
    aws: AwsConfig,
    hosting: HostingConfig,
    *,
    strategy: str,
    join_source: bool = False,
) -> TransformPlan:
    """Return the plan of a transform job; nothing is sent.

    Parameters
    ----------
    paths : sequence of Path
        RecordIO or CSV without labels, all of one format, all compressed by gzip or none.
    join_source : bool
        CSV only: each line of the answer repeats its row, as SageMaker joins them.

    Raises
    ------
    ConfigError
        If the files are not of one form, two share a name, or ``[aws]`` or ``[hosting]`` lacks
        something.
    """
    check_launchable(aws)
    check_hostable(hosting)
    files = {path.name: path for path in paths}
    if len(files) < len(paths):
        raise ConfigError("two files share a name: predict them apart")
    if missing := [path for path in paths if not path.is_file()]:
        raise ConfigError(f"{missing[0]}: no such file")
    forms = {_form(path) for path in paths}
    if len(forms) != 1:
        raise ConfigError(
            "a transform job takes files of one format, compressed or not: give them apart"
        )
    table_format, compression = forms.pop()
    if table_format not in _CONTENT:
        raise ConfigError(f"{paths[0]}: a container reads RecordIO and CSV, not {table_format}")
    if join_source and table_format != "csv":
        raise ConfigError("SageMaker joins answers to rows of text only: give CSV, or leave it out")
    content_type, split_type = _CONTENT[table_format]
    hosted = hosted_model(model, aws, hosting, "shadow")
    given = {
        "files": {name: digest_file(path) for name, path in files.items()}, "join": join_source,
        "payload": hosting.max_payload_mb,
    }  # fmt: skip
    name = f"trademl-{artifact_id('transform', {'model': hosted.name}, given, code='1')}"
    check_name(name, TRAINING_LIMIT)
    return TransformPlan(
        name, hosted, files, content_type, split_type, compression, join_source, strategy, aws,
        hosting,
    )  # fmt: skip


def estimate_transform(plan: TransformPlan, prices: PriceTable) -> Estimate:
    """Return what a job costs at worst.

    SageMaker has no limit of a transform job's time: the job is stopped from here after
    ``max_runtime_s``, as long as it is waited for.
    """
    hosting = plan.hosting
    return Estimate(
        1,
        hosting.instance_type,
        hosting.instance_count,
        hosting.instance_count * hosting.max_runtime_s / 3600.0,
        prices.usd_per_hour.get(hosting.instance_type),
        plan.aws.region,
        prices.as_of,
    )


@dataclass(frozen=True)
class Transformed:
    """A transform job: how it stands, and the files that it has brought home."""

    name: str
    status: str
    files: tuple[Path, ...] = ()


def run_transform(
    plan: TransformPlan,
    folder: Path,
    prices: PriceTable,
    *,
    max_cost_usd: float | None = None,
    wait: bool = True,
    retry: bool = False,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Transformed:
    """Start the job, or take up the one that was started, and bring its answers to a folder.

    Parameters
    ----------
    folder : Path
        Takes ``<name>.jsonl`` for each file.
    ledger : Ledger, optional
        Keeps the job with its price, as it keeps training jobs.

    Raises
    ------
    CloudError
        If the worst case is above the budget, AWS refuses, or the job fails or runs for longer
        than ``max_runtime_s``, which stops it.
    """
    progress = progress or Silent()
    clients = open_clients(plan.aws.region)
    plan, described = _take_up(plan, clients, retry=retry)
    estimate = None
    if described is None:
        estimate = estimate_transform(plan, prices)
        progress.step("cost", str(estimate))
        check_budget(estimate, max_cost_usd or plan.aws.max_cost_usd)
        progress.done()
        _start(plan, clients, progress)
        described = _describe(plan, clients)
    _record(ledger, plan, described, estimate)
    if not wait:
        return Transformed(plan.name, KIND.status(described))
    described = _wait(plan, clients, progress, sleep, clock)
    _record(ledger, plan, described, None)
    if KIND.status(described) != "Completed":
        reason = " ".join(str(described.get("FailureReason", "SageMaker gives no reason")).split())
        raise CloudError(
            f"transform job {plan.name} ended as {KIND.status(described)}: {reason}; its log is in "
            "CloudWatch under /aws/sagemaker/TransformJobs; mend it and run again with --retry"
        )
    return Transformed(plan.name, "Completed", _fetch(plan, clients, folder, progress))


def _record(
    ledger: Ledger | None,
    plan: TransformPlan,
    described: Mapping[str, Any],
    estimate: Estimate | None,
) -> None:
    if ledger is not None:
        record_transform(ledger, plan, described, estimate=estimate)


def _form(path: Path) -> tuple[TableFormat, str]:
    if path.suffix == ".gz":
        return format_of(path.with_suffix("")), "Gzip"
    return format_of(path), "None"


def _take_up(
    plan: TransformPlan, clients: Clients, *, retry: bool
) -> tuple[TransformPlan, dict[str, Any] | None]:
    """Return the last attempt that was started; or one to start, which has no description."""
    from dataclasses import replace

    last, found = plan, None
    for number in range(1, MAX_ATTEMPTS + 1):
        attempt = replace(plan, name=attempt_name(plan.name, number, TRAINING_LIMIT))
        described = KIND.find(clients.sagemaker, attempt.name)
        if described is None:
            is_over = found is not None and KIND.status(found) in ("Failed", "Stopped")
            return (attempt, None) if found is None or (retry and is_over) else (last, found)
        last, found = attempt, described
    return last, found


def _start(plan: TransformPlan, clients: Clients, progress: Progress) -> None:
    from botocore.exceptions import ClientError

    archive = {plan.model.archive.name: plan.model.archive}
    upload_files(archive, plan.model.folder, plan.aws, clients.s3, progress)
    upload_files(plan.files, plan.input_uri, plan.aws, clients.s3, progress)
    progress.step("start", plan.name)
    with aws_errors(f"starting transform job {plan.name}"):
        try:
            clients.sagemaker.describe_model(ModelName=plan.model.name)
        except ClientError as error:
            if not is_not_found(error):
                raise
            clients.sagemaker.create_model(**model_request(plan.model, plan.aws, plan.strategy))
        KIND.create(clients.sagemaker, plan.request)
    progress.done()


def _describe(plan: TransformPlan, clients: Clients) -> dict[str, Any]:
    with aws_errors(f"looking at {plan.name}"):
        return KIND.describe(clients.sagemaker, plan.name)


def _wait(
    plan: TransformPlan,
    clients: Clients,
    progress: Progress,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> dict[str, Any]:
    progress.step("wait", plan.name)
    until = clock() + plan.hosting.max_runtime_s
    is_stopped = False
    while KIND.status(described := _describe(plan, clients)) not in FINISHED:
        if clock() > until and not is_stopped:
            KIND.stop(clients.sagemaker, plan.name)
            is_stopped = True
        sleep(plan.aws.poll_s)
    progress.done(KIND.status(described))
    return described


def _fetch(
    plan: TransformPlan, clients: Clients, folder: Path, progress: Progress
) -> tuple[Path, ...]:
    """Bring every answer home; each appears under its name when it is complete."""
    bucket = plan.aws.bucket
    prefix = plan.output_uri.removeprefix(f"s3://{bucket}/")
    brought = []
    progress.step("fetch", plan.output_uri)
    with storage_errors(folder, "--output"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in plan.files:
            target = folder / f"{name}.jsonl"
            part = target.with_name(f"{target.name}.part")
            with aws_errors(f"fetching {plan.output_uri}/{name}.out"):
                clients.s3.download_file(bucket, f"{prefix}/{name}.out", str(part))
            part.replace(target)
            brought.append(target)
    progress.done(f"{len(brought)} files")
    return tuple(brought)
