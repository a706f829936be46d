"""What moto cannot play, against a server that answers with the API reference's shapes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from aws_cases import (
    BUCKET,
    OWN_IMAGE,
    REGION,
    ROLE,
    DocumentedServer,
    RefusalError,
    TrainingService,
    TuningService,
    described_training,
    write_archive,
)
from running import one_line
from trademl.aws.clients import open_clients
from trademl.aws.jobs import Handling, JobGoesOnError, train_on_sagemaker, tune_on_sagemaker
from trademl.aws.plan import plan_training
from trademl.aws.prices import load_prices, refresh_prices
from trademl.aws.settings import AwsConfig
from trademl.aws.watch import MAX_MISSES, wait_for
from trademl.errors import CloudError
from trademl.ledger import tables
from trademl.train.floors import SelectionFloors
from trademl.train.jobs import select_model

STATIC = {"predictor_type": "binary_classifier", "epochs": "3"}
OWN = AwsConfig(region=REGION, role_arn=ROLE, bucket=BUCKET, image=OWN_IMAGE, poll_s=0.05)
FAILED = {
    "TrainingJobStatus": "Failed", "SecondaryStatus": "Failed",
    "FailureReason": "AlgorithmError: label of train row 3 is 7.0,\nexpected 0 or 1",
}  # fmt: skip


class Heard:
    """Keeps what progress was told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.counts: list[tuple[int, int]] = []

    def step(self, name: str, detail: str = "") -> None:
        self.steps.append(f"{name}: {detail}")

    def advance(self, done: int, total: int) -> None:
        self.counts.append((done, total))

    def done(self, detail: str = "") -> None:
        pass


def put_model(name: str, content: bytes) -> None:
    import boto3

    key = f"trademl/jobs/{name}/output/model.tar.gz"
    boto3.client("s3", region_name=REGION).put_object(Bucket=BUCKET, Key=key, Body=content)


@pytest.fixture
def serve(aws, monkeypatch):
    """Return a function that sends SageMaker's traffic to a server until the test ends."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(server: DocumentedServer, service: str = "SAGEMAKER") -> DocumentedServer:
            stack.enter_context(server.running())
            monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", server.url)
            return server

        yield start


def secondary(status: str, message: str) -> dict:
    return {
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": status,
        "SecondaryStatusTransitions": [
            {"Status": status, "StartTime": 1_790_000_000.0, "StatusMessage": message}
        ],
    }


# --- waiting ---


def test_every_state_is_told_once_and_final_figures_at_the_end(serve, dataset, store, ledger):
    metrics = [
        {"MetricName": "validation:objective_loss", "Value": 0.5, "Timestamp": 1_790_000_300.0},
        {"MetricName": "ObjectiveMetric", "Value": 0.5, "Timestamp": 1_790_000_300.0},
    ]
    starting = secondary("Starting", "Launching requested ML instances")
    downloading = secondary("Downloading", "Downloading input data")
    service = TrainingService(
        starting, starting, downloading, downloading, {"FinalMetricDataList": metrics}
    )
    serve(service.server)
    heard = Heard()
    launched = train_on_sagemaker(dataset, STATIC, store, ledger, OWN, seed=3, progress=heard)
    assert [s for s in heard.steps if s.startswith("sagemaker")] == [
        "sagemaker: Starting: Launching requested ML instances",
        "sagemaker: Downloading: Downloading input data",
        "sagemaker: Completed (validation:objective_loss 0.5)",
    ]
    (trial,) = launched.study.metrics["trials"]
    assert trial["metrics"] == {"validation:objective_loss": 0.5}
    assert trial["objective"] == 0.5


def test_worst_case_is_said_before_anything_is_sent(serve, dataset, store, ledger):
    service = TrainingService()
    serve(service.server)
    heard = Heard()
    train_on_sagemaker(dataset, STATIC, store, ledger, OWN, seed=3, progress=heard)
    names = [step.partition(":")[0] for step in heard.steps]
    assert names == ["cost", "upload", "start", "sagemaker"]


def test_figures_of_a_running_job_come_from_cloudwatch(serve, dataset):
    plan = plan_training(dataset, STATIC, OWN, seed=3)
    running = {**secondary("Training", ""), "TrainingStartTime": time.time() - 600}
    service = TrainingService(running, {})
    serve(service.server)
    service.create(plan.request)
    clients = open_clients(REGION)
    datum = {
        "MetricName": "validation:objective_loss",
        "Dimensions": [{"Name": "TrainingJobName", "Value": plan.name}],
        "Timestamp": datetime.now(UTC) - timedelta(minutes=3),  # moto leaves out the last period
        "Value": 0.625,
    }
    clients.cloudwatch.put_metric_data(Namespace="/aws/sagemaker/TrainingJobs", MetricData=[datum])
    heard = Heard()
    wait_for(plan, clients, heard, sleep=lambda _: None)
    assert heard.steps[0] == "sagemaker: Training (validation:objective_loss 0.625)"


def test_a_wait_outlives_throttling(serve, dataset):
    plan = plan_training(dataset, STATIC, OWN, seed=3)
    service = TrainingService({})
    answers = iter([RefusalError("ThrottlingException", "Rate exceeded")] * MAX_MISSES)

    def describe(request):
        if (refusal := next(answers, None)) is not None:
            raise refusal
        return service.describe(request)

    service.server.answers["DescribeTrainingJob"] = describe
    serve(service.server)
    service.create(plan.request)
    slept: list[float] = []
    ended = wait_for(plan, open_clients(REGION), Heard(), sleep=slept.append)
    assert ended["TrainingJobStatus"] == "Completed"
    assert len(slept) == MAX_MISSES


def test_a_wait_does_not_outlive_a_refusal(serve, dataset):
    plan = plan_training(dataset, STATIC, OWN, seed=3)

    def refuse(request):
        raise RefusalError("AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized")

    serve(DocumentedServer({"DescribeTrainingJob": refuse}))
    with pytest.raises(
        CloudError, match="DescribeTrainingJob answered AccessDeniedException.*give"
    ):
        wait_for(plan, open_clients(REGION), Heard(), sleep=lambda _: None)


# --- tuning ---


def test_children_become_trials_of_an_ordinary_study(
    serve, dataset, store, ledger, strategy, tmp_path
):
    service = TuningService()
    serve(service.server)
    job = json.loads((strategy.parent / "tuning.json").read_text())
    handling = Handling(wait=False)
    started = tune_on_sagemaker(dataset, job, store, ledger, OWN, seed=3, handling=handling)
    # The documented job is over at once; its second child left a model, its first did not.
    put_model(service.names[1], write_archive(tmp_path / "m.tar.gz"))
    study = tune_on_sagemaker(dataset, job, store, ledger, OWN, seed=3).study or started.study

    trials = study.metrics["trials"]
    assert [t["number"] for t in trials] == [0, 1, 2]
    assert [t["objective"] for t in trials] == [0.25, 0.5, None]
    assert trials[2]["failure"] == "ClientError: bad rows"
    assert trials[0]["hyperparameters"] == {**STATIC, "wd": "0.5"}
    assert trials[0]["metrics"] == {"validation:recall": 0.5}
    rows = ledger.rows(tables.Trial, study_id=study.id)
    assert [row.objective for row in rows] == [0.25, 0.5, None]
    (cloud,) = ledger.rows(tables.CloudJob)
    assert (cloud.kind, cloud.billable_s) == ("tuning", 3 * 120)


def test_selection_judges_the_trials_whose_models_came_home(
    serve, dataset, store, ledger, strategy, tmp_path
):
    service = TuningService()
    serve(service.server)
    job = json.loads((strategy.parent / "tuning.json").read_text())
    job["HyperParameterTuningJobName"] = "mine"
    nested = {
        "HyperParameterTuningJobName": job.pop("HyperParameterTuningJobName"),
        "TrainingJobDefinition": {"StaticHyperParameters": job.pop("StaticHyperParameters")},
        "HyperParameterTuningJobConfig": job,
    }
    put_model("mine-002-0f0444b2", write_archive(tmp_path / "m.tar.gz"))
    study = tune_on_sagemaker(dataset, nested, store, ledger, OWN, seed=3).study
    model = select_model(study, SelectionFloors(), store, ledger, seed=3)
    assert model.metrics["trial"] == 1
    reasons = {j["trial"]: j["reasons"] for j in model.metrics["judgements"]}
    assert "without a model in S3" in reasons[0][0]
    assert reasons[2] == ["training failed: ClientError: bad rows"]


# --- when it fails ---


def test_failed_job_says_its_reason_and_is_not_started_again(run, strategy, serve, ledger):
    strategy.write_text(strategy.read_text() + f'image = "{OWN_IMAGE}"\n')
    service = TrainingService(FAILED)
    serve(service.server)
    for _ in range(2):
        done = run("train", "--on", "sagemaker")
        assert done.returncode == 1
        assert "label of train row 3 is 7.0, expected 0 or 1" in one_line(done)
    assert len(service.jobs) == 1
    (row,) = ledger.rows(tables.CloudJob)
    assert row.status == "Failed"


def test_retry_starts_another_attempt_of_a_failed_job(run, strategy, serve):
    strategy.write_text(strategy.read_text() + f'image = "{OWN_IMAGE}"\n')
    service = TrainingService(FAILED)
    serve(service.server)
    run("train", "--on", "sagemaker")
    run("train", "--on", "sagemaker", "--retry")
    first, second = service.jobs
    assert second == f"{first}-r2"


def test_quota_is_named_with_what_to_do(run, strategy, serve):
    def refuse(request):
        raise RefusalError(
            "ResourceLimitExceeded",
            "The account-level service limit 'ml.m5.large for training job usage' is 0 Instances, "
            "with current utilization of 0 Instances and a request delta of 1 Instances. Please "
            "use AWS Service Quotas to request an increase for this quota.",
        )

    service = TrainingService()
    service.server.answers["CreateTrainingJob"] = refuse
    serve(service.server)
    done = run("train", "--on", "sagemaker")
    assert done.returncode == 1
    assert "the quota 'ml.m5.large for training job usage' is 0: ask for more" in one_line(done)


def test_missing_permission_names_the_operation(run, strategy, serve):
    def refuse(request):
        raise RefusalError(
            "AccessDeniedException", "User x is not authorized to perform: sagemaker:C"
        )

    service = TrainingService()
    service.server.answers["CreateTrainingJob"] = refuse
    serve(service.server)
    done = run("train", "--on", "sagemaker")
    assert "CreateTrainingJob answered AccessDeniedException" in one_line(done)
    assert "give whoever runs trademl this permission" in one_line(done)


def test_spot_capacity_that_never_came(serve, dataset, store, ledger):
    late = {
        "TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxWaitTimeExceeded",
        "ModelArtifacts": {},
    }  # fmt: skip
    serve(TrainingService(late).server)
    with pytest.raises(CloudError, match="ended as MaxWaitTimeExceeded.*--retry"):
        train_on_sagemaker(dataset, STATIC, store, ledger, OWN, seed=3)


def test_a_job_stopped_at_its_limit_keeps_its_model(serve, dataset, store, ledger, tmp_path):
    stopped = {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}
    serve(TrainingService(stopped).server)
    put_model(
        plan_training(dataset, STATIC, OWN, seed=3).name, write_archive(tmp_path / "m.tar.gz")
    )
    study = train_on_sagemaker(dataset, STATIC, store, ledger, OWN, seed=3).study
    assert study.metrics["trials"][0]["failure"] is None


def test_two_processes_at_once_share_one_job(serve, dataset, store, ledger):
    plan = plan_training(dataset, STATIC, OWN, seed=3)
    service = TrainingService()
    looks = iter([True])

    def describe(request):
        if next(looks, False):  # at the first look the other process has not started it yet
            raise RefusalError("ValidationException", "Requested resource not found.")
        return service.describe(request)

    service.server.answers["DescribeTrainingJob"] = describe
    serve(service.server)
    service.create(plan.request)
    launched = train_on_sagemaker(dataset, STATIC, store, ledger, OWN, seed=3)
    assert launched.plan.name == plan.name
    assert list(service.jobs) == [plan.name]


def test_model_of_other_columns_is_not_taken_for_the_datasets(
    serve, dataset, store, ledger, tmp_path
):
    serve(TrainingService().server)
    name = plan_training(dataset, STATIC, OWN, seed=3).name
    put_model(name, write_archive(tmp_path / "m.tar.gz", columns=("a", "b")))
    study = train_on_sagemaker(dataset, STATIC, store, ledger, OWN, seed=3).study
    assert "its model has 2 columns, the dataset 3" in study.metrics["trials"][0]["failure"]


# --- going home and coming back ---


def test_going_home_prints_the_job_and_the_same_command_comes_back(
    run, strategy, serve, tmp_path, ledger
):
    strategy.write_text(strategy.read_text() + f'image = "{OWN_IMAGE}"\n')
    service = TrainingService(secondary("Starting", ""), secondary("Starting", ""), {})
    serve(service.server)
    left = run("train", "--on", "sagemaker", "--no-wait", "--json")
    assert left.returncode == 0, left.stderr
    (name,) = service.jobs
    found = json.loads(left.stdout)
    assert (found["job"], found["status"]) == (name, "InProgress")
    put_model(name, write_archive(tmp_path / "m.tar.gz"))
    back = run("train", "--on", "sagemaker", "--json")
    assert json.loads(back.stdout)["id"] == found["id"]
    assert list(service.jobs) == [name]


def test_jobs_are_listed_with_what_was_billed(run, strategy, serve):
    serve(pricing([[product("EUW2-Train:ml.m5.large", "0.134")]]), "PRICING")
    run("aws", "prices", "--refresh")
    serve(TrainingService().server)
    run("train", "--on", "sagemaker")
    (job,) = json.loads(run("aws", "jobs", "--json").stdout)["jobs"]
    assert (job["status"], job["billable_s"]) == ("Completed", 120)
    assert job["cost_usd"] == pytest.approx(120 / 3600 * 0.134, abs=1e-4)
    assert job["worst_case_usd"] == pytest.approx(0.134)


def test_a_long_name_of_ones_own_is_found_again(serve, dataset, store, ledger, strategy):
    service = TuningService()
    serve(service.server)
    job = json.loads((strategy.parent / "tuning.json").read_text())
    nested = {
        "HyperParameterTuningJobName": "a" * 32,
        "TrainingJobDefinition": {"StaticHyperParameters": job.pop("StaticHyperParameters")},
        "HyperParameterTuningJobConfig": job,
    }

    def describe(request):
        if request["HyperParameterTuningJobName"] != "a" * 32:
            raise RefusalError("ResourceNotFound", "Requested resource not found.")
        return service.describe(request)

    service.server.answers["DescribeHyperParameterTuningJob"] = describe
    for _ in range(2):
        launched = tune_on_sagemaker(dataset, nested, store, ledger, OWN, seed=3)
    assert len(service.server.requests("CreateHyperParameterTuningJob")) == 1
    assert launched.plan.name == "a" * 32


# --- Ctrl-C ---


def test_interruption_carries_the_job(serve, dataset, store, ledger):
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    service = TrainingService(secondary("Training", ""))
    serve(service.server)
    with pytest.raises(JobGoesOnError) as stop:
        train_on_sagemaker(
            dataset, STATIC, store, ledger, OWN, seed=3, handling=Handling(sleep=interrupt)
        )
    assert stop.value.plan.name in service.jobs
    assert service.stopped == []


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "is_stopped"), [("y\n", True), ("n\n", False), (None, False)])
def test_ctrl_c_asks_before_it_stops_anything(
    answer, is_stopped, serve, dataset, strategy, tmp_path
):
    service = TrainingService(secondary("Training", "Training image download completed"))
    serve(service.server)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "trademl", "train", "--on", "sagemaker", "--workspace", "ws"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL if answer is None else slave, env=dict(os.environ),
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while len(service.server.requests("DescribeTrainingJob")) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if answer is not None:
            os.write(master, answer.encode())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
        os.close(master)
        os.close(slave)
    assert process.returncode == 130, errors
    (name,) = service.jobs
    assert service.stopped == ([name] if is_stopped else [])
    expected = f"{name} is told to stop" if is_stopped else f"{name} goes on in {REGION}"
    assert expected in errors


# --- prices ---


def product(usage: str, usd: str) -> str:
    """Return an entry of PriceList, a JSON text as the Price List Query API sends it."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": usd}}
    return json.dumps(
        {
            "product": {
                "productFamily": "ML Instance",
                "attributes": {
                    "regionCode": REGION,
                    "usagetype": usage,
                    "operation": "RunInstance",
                },
                "sku": "X",
            },
            "serviceCode": "AmazonSageMaker",
            "terms": {"OnDemand": {"X.Y": {"priceDimensions": {"X.Y.Z": dimension}}}},
        }
    )


def pricing(pages: list[list[str]]) -> DocumentedServer:
    def answer(request):
        page = int(request.get("NextToken", "0"))
        more = {"NextToken": str(page + 1)} if page + 1 < len(pages) else {}
        return {"FormatVersion": "aws_v1", "PriceList": pages[page], **more}

    return DocumentedServer({"GetProducts": answer})


def test_prices_are_those_of_training_machines_on_demand(serve, tmp_path):
    pages = [
        [product("EUW2-Train:ml.m5.large", "0.134"), product("EUW2-Host:ml.m5.large", "9")],
        [product("EUW2-Train:ml.c5.xlarge", "0.238"), product("EUW2-Notebk:ml.t3.medium", "9")],
    ]
    server = serve(pricing(pages), "PRICING")
    refresh_prices(REGION, tmp_path, now=lambda: datetime(2026, 11, 24, tzinfo=UTC))
    found = load_prices(REGION, tmp_path)
    assert found.usd_per_hour == {"ml.c5.xlarge": 0.238, "ml.m5.large": 0.134}
    assert (found.as_of, found.source) == ("2026-11-24", "AWS Price List")
    sent = server.requests("GetProducts")[0]
    assert sent["ServiceCode"] == "AmazonSageMaker"
    assert sent["Filters"][0]["Value"] == REGION


def test_refreshed_prices_make_a_budget_possible(run, strategy, serve):
    serve(pricing([[product("EUW2-Train:ml.m5.large", "0.134")]]), "PRICING")
    refreshed = run("aws", "prices", "--refresh", "--json")
    assert refreshed.returncode == 0, refreshed.stderr
    assert json.loads(refreshed.stdout)["usd_per_hour"] == {"ml.m5.large": 0.134}
    serve(TrainingService().server)
    done = run("train", "--on", "sagemaker", "--max-cost", "0.13")
    assert "worst case 0.13 USD" in one_line(done)  # 0.134 an hour, shown in cents
    assert run("train", "--on", "sagemaker", "--max-cost", "0.14").returncode == 0


def test_prices_of_an_unknown_region_change_nothing(serve, tmp_path):
    serve(pricing([[]]), "PRICING")
    with pytest.raises(CloudError, match="knows no training machine in 'eu-west-9'"):
        refresh_prices("eu-west-9", tmp_path)
    assert list(tmp_path.glob("*.json")) == []


def test_documented_answers_pass_botocores_own_model():
    """The fake is only worth something where it has the shape of the real answer."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    model = get_session().get_service_model("sagemaker")
    request = {
        "TrainingJobName": "x", "HyperParameters": {}, "AlgorithmSpecification": {
            "TrainingInputMode": "File"}, "RoleArn": ROLE, "InputDataConfig": [],
        "OutputDataConfig": {"S3OutputPath": "s3://b"}, "ResourceConfig": {},
        "StoppingCondition": {},
    }  # fmt: skip
    for changes in (FAILED, secondary("Training", "m"), {}):
        shape = model.operation_model("DescribeTrainingJob").output_shape
        report = ParamValidator().validate(described_training(request, **changes), shape)
        assert "Missing required" not in report.generate_report()
        assert "Unknown parameter" not in report.generate_report()
