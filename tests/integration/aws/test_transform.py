"""Batch transform: rows go to S3, a job is started once, its answers come home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aws_cases import BUCKET, DocumentedServer, RefusalError
from hosting_cases import AWS, HOSTING, model_artifact
from trademl.aws.prices import load_prices
from trademl.aws.transform import TransformPlan, plan_transform, run_transform
from trademl.errors import CloudError

ANSWER = b'{"score":0.5,"predicted_label":0.0}\n'


class TransformService:
    """One account's transform jobs; each look at a job sees the next of its states."""

    def __init__(self, s3: Any, *states: str) -> None:
        self.s3 = s3
        self.states = list(states)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.stopped: list[str] = []
        self.server = DocumentedServer(
            {
                "DescribeModel": self.no_model,
                "CreateModel": lambda r: {"ModelArn": "arn:aws:sagemaker:eu-west-2:1:model/m"},
                "CreateTransformJob": self.create,
                "DescribeTransformJob": self.describe,
                "StopTransformJob": self.stop,
            }
        )

    def no_model(self, request: dict[str, Any]) -> dict[str, Any]:
        raise RefusalError("ValidationException", "Could not find model.")

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        self.jobs[request["TransformJobName"]] = request
        source = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        prefix = source.removeprefix(f"s3://{BUCKET}/")
        for found in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]:
            name = found["Key"].rpartition("/")[2]
            output = request["TransformOutput"]["S3OutputPath"].removeprefix(f"s3://{BUCKET}/")
            self.s3.put_object(Bucket=BUCKET, Key=f"{output}/{name}.out", Body=ANSWER)
        return {"TransformJobArn": "arn:aws:sagemaker:eu-west-2:1:transform-job/t"}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["TransformJobName"]
        if name not in self.jobs:
            raise RefusalError("ValidationException", f"Could not find requested job {name}")
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {**self.jobs[name], "TransformJobStatus": state, "CreationTime": 1.79e9,
                "FailureReason": "AlgorithmError: bad row"}  # fmt: skip

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self.stopped.append(request["TransformJobName"])
        self.states = ["Stopped"]
        return {}


@pytest.fixture
def s3(aws: str) -> Any:
    import boto3

    return boto3.client("s3", region_name=AWS.region)


@pytest.fixture
def plan(tmp_path: Path) -> TransformPlan:
    path = tmp_path / "rows.csv"
    path.write_text("1,2,3\n")
    return plan_transform(model_artifact(tmp_path / "a"), [path], AWS, HOSTING, strategy="es")


def run(service, plan, folder, monkeypatch, **options):
    with service.server.running() as server, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", server.url)
        prices = load_prices("us-east-1")
        return run_transform(plan, folder, prices, sleep=lambda _: None, **options)


def test_answers_come_home_under_the_names_of_their_rows(s3, plan, tmp_path, monkeypatch):
    service = TransformService(s3, "InProgress", "Completed")

    done = run(service, plan, tmp_path / "out", monkeypatch)

    assert [path.name for path in done.files] == ["rows.csv.jsonl"]
    assert done.files[0].read_bytes() == ANSWER


def test_the_same_command_again_starts_no_second_job(s3, plan, tmp_path, monkeypatch):
    service = TransformService(s3, "Completed")
    run(service, plan, tmp_path / "out", monkeypatch)

    again = run(service, plan, tmp_path / "other", monkeypatch)

    assert again.files[0].read_bytes() == ANSWER
    assert len(service.server.requests("CreateTransformJob")) == 1


def test_a_failed_job_says_why_and_is_started_anew_only_where_asked(
    s3, plan, tmp_path, monkeypatch
):
    service = TransformService(s3, "Failed")
    for _ in range(2):
        with pytest.raises(CloudError, match="ended as Failed: AlgorithmError: bad row"):
            run(service, plan, tmp_path / "out", monkeypatch)
    service.states = ["Failed", "Completed"]

    run(service, plan, tmp_path / "out", monkeypatch, retry=True)

    assert list(service.jobs) == [plan.name, f"{plan.name}-r2"]


def test_a_job_that_runs_too_long_is_stopped(s3, plan, tmp_path, monkeypatch):
    service = TransformService(s3, "InProgress")
    times = iter(range(0, 10**9, 3000))

    with pytest.raises(CloudError, match="ended as Stopped"):
        run(service, plan, tmp_path / "out", monkeypatch, clock=lambda: next(times))

    assert service.stopped == [plan.name]


def test_a_job_above_the_budget_is_refused_before_anything_is_sent(s3, plan, tmp_path, monkeypatch):
    service = TransformService(s3, "Completed")

    with pytest.raises(CloudError, match=r"above the budget of 0\.01 USD"):
        run(service, plan, tmp_path / "out", monkeypatch, max_cost_usd=0.01)

    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
