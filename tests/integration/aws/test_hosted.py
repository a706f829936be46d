"""``deploy sagemaker`` and transform jobs from the command line, and what the ledger keeps of both."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from aws_cases import BUCKET, OWN_IMAGE, REGION, DocumentedServer, RefusalError
from ec2_cases import Ssm, stub_machine
from hosting_cases import HostingService
from multi_model_cases import MultiModelRuntime
from trademl.ledger import Ledger, tables
from trademl.serve.container import container_serving
from trademl.serve.settings import ServerConfig
from trademl.train.model import load_binary_model

PLACE = f"sagemaker:{REGION}/trademl-es"


@pytest.fixture
def model(run, strategy: Path, store, ledger: Ledger) -> str:
    """Train a model on the small dataset and make it the champion; return its id."""
    strategy.write_text(strategy.read_text() + f'[hosting]\nimage = "{OWN_IMAGE}"\n')
    assert run("train", "--hp", "epochs=2").returncode == 0
    chosen = json.loads(run("models", "select", "--json").stdout)["id"]
    ledger.record(
        tables.Proof(
            id="proof-1", dataset_id=store.get(chosen).manifest["parents"][1], is_proven=True,
            evidence={},
        )
    )  # fmt: skip
    reign(ledger, chosen, number=0)
    return chosen


def reign(ledger: Ledger, model: str, *, number: int) -> None:
    ledger.record(
        tables.Reign(
            strategy="es", number=number, model_id=model, from_at=datetime.now(UTC), to_at=None,
            how="hand", why="test",
        )
    )  # fmt: skip


def score_of(store, model: str) -> float:
    loaded = load_binary_model(store.get(model).file("model.tar.gz"))
    return float(loaded.scores(np.asarray(loaded.mean_D, np.float32)[None])[0])


@contextmanager
def answering(service: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send SageMaker's operations to a service; S3 goes to moto."""
    with service.server.running() as server, monkeypatch.context() as patch:
        for name in ("SAGEMAKER", "SAGEMAKER_RUNTIME"):
            patch.setenv(f"AWS_ENDPOINT_URL_{name}", server.url)
        yield


def standing(ledger: Ledger) -> list[str]:
    rows = ledger.rows(tables.Deployment, endpoint=PLACE)
    return [row.model_id for row in rows if row.retired_at is None]


@pytest.mark.usefixtures("aws")
def test_an_endpoint_is_created_looked_at_left_alone_and_stopped(
    run, model, store, ledger, monkeypatch
):
    service = HostingService(score_of(store, model))
    with answering(service, monkeypatch):
        before = json.loads(run("deploy", "sagemaker", "--status", "--json").stdout)
        created = json.loads(run("deploy", "sagemaker", "--json").stdout)
        in_ledger = standing(ledger)
        again = json.loads(run("deploy", "sagemaker", "--json").stdout)
        status = json.loads(run("deploy", "sagemaker", "--status", "--json").stdout)
        stopped = json.loads(run("deploy", "sagemaker", "--stop", "--json").stdout)
        twice = run("deploy", "sagemaker", "--stop")

    assert before["status"] == "none"
    assert (created["change"], created["mode"], created["model"]) == ("created", "live", model)
    assert in_ledger == [model]
    assert again["change"] == "unchanged"
    assert (status["status"], status["config"]) == ("InService", created["config"])
    assert status["variants"] == [{"name": "main", "instances": 1, "weight": 1.0}]
    assert stopped["status"] == "deleted"
    assert (service.endpoints, service.configs, standing(ledger)) == ({}, {}, [])
    assert (twice.returncode, twice.stderr.count("\n")) == (1, 1)
    assert "there is no endpoint trademl-es in eu-west-2: nothing to stop" in twice.stderr


@pytest.mark.usefixtures("aws")
def test_an_update_whose_smoke_prediction_fails_goes_back_and_the_ledger_keeps_the_old_model(
    run, model, store, ledger, monkeypatch
):
    service = HostingService(score_of(store, model))
    with answering(service, monkeypatch):
        first = json.loads(run("deploy", "sagemaker", "--json").stdout)
        run("train", "--hp", "epochs=3")
        other = json.loads(run("models", "select", "--json").stdout)["id"]
        with ledger.session() as session:
            session.get(tables.Reign, ("es", 0)).to_at = datetime.now(UTC)
        reign(ledger, other, number=1)
        failed = run("deploy", "sagemaker")  # the service goes on scoring as the first model
        kept = standing(ledger)
        service.score = score_of(store, other)
        updated = json.loads(run("deploy", "sagemaker", "--json").stdout)

    assert other != model
    assert failed.returncode == 1
    assert "it serves another model" in failed.stderr.splitlines()[-1]
    assert kept == [model]
    assert (updated["change"], updated["model"]) == ("updated", other)
    assert updated["config"] != first["config"]
    assert standing(ledger) == [other]


@pytest.mark.usefixtures("aws")
def test_an_endpoint_that_is_being_changed_is_not_stopped(run, model, store, ledger, monkeypatch):
    service = HostingService(score_of(store, model))
    with answering(service, monkeypatch):
        run("deploy", "sagemaker")
        service.endpoints["trademl-es"]["state"] = "RollingBack"
        done = run("deploy", "sagemaker", "--stop")

    assert done.returncode == 1
    assert "endpoint trademl-es is RollingBack: wait for its end" in done.stderr
    assert standing(ledger) == [model]


@pytest.mark.usefixtures("aws")
def test_a_dry_run_on_ec2_shows_what_the_server_is_told_by_the_file_and_by_flags(
    run, model, strategy
):
    strategy.write_text(
        strategy.read_text() + f'[ec2.serve]\nworkers = 2\ncapture = "s3://{BUCKET}/kept"\n'
    )
    words = ("--workers", "4", "--capture-percent", "5", "--no-emf")
    done = run("deploy", "ec2", "--dry-run", *words)
    refused = run("deploy", "ec2", "--dry-run", "--capture", "kept")

    assert done.returncode == 0, done.stderr
    told = f"serve --workers 4 --capture s3://{BUCKET}/kept --capture-percent 5.0 --no-emf"
    files = json.loads(done.stdout)[-1]["files"]
    assert f"{told}\n" in files["trademl.service"]
    assert f"command: {json.dumps(told.split())}\n" in files["compose.yaml"]
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("trademl: capture is 'kept': a container")


@pytest.mark.usefixtures("aws")
def test_a_container_of_sagemaker_is_given_the_rules_of_its_strategy(
    run, model, store, strategy, tmp_path, monkeypatch
):
    import boto3

    strategy.write_text(
        strategy.read_text() + "[ladder]\ndeadline_ms = 250.0\n[freshness]\nmax_spread = 0.5\n"
    )
    service = HostingService(score_of(store, model))
    service.said = {"model": model, "reason": "normal"}
    with answering(service, monkeypatch):
        done = run("deploy", "sagemaker", "--json")
    (request,) = service.models.values()
    key = request["PrimaryContainer"]["ModelDataUrl"].removeprefix(f"s3://{BUCKET}/")
    boto3.client("s3").download_file(BUCKET, key, str(tmp_path / "model.tar.gz"))
    (tmp_path / "ml" / "model").mkdir(parents=True)
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        tar.extractall(tmp_path / "ml" / "model", filter="data")
    (served,) = container_serving(tmp_path / "ml", ServerConfig(), {}).strategies

    assert done.returncode == 0, done.stderr
    assert (served.policy.deadline_ms, served.freshness.max_spread) == (250.0, 0.5)
    assert [(m.id, m.mode) for m in served.ladder] == [(model, "live")]


@contextmanager
def several(service: HostingService, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Answer as `answering`, with real containers behind the endpoints."""
    runtime = MultiModelRuntime(service, folder / "machines")
    with (
        service.server.running() as server,
        runtime.running() as url,
        monkeypatch.context() as patch,
    ):
        patch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", server.url)
        patch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        yield runtime


def shared(ledger: Ledger) -> dict[str, bool]:
    """Return the strategies that are or were at the multi-model endpoint, and whether they are."""
    place = f"sagemaker:{REGION}/trademl-serving/"
    rows = [r for r in ledger.rows(tables.Deployment) if r.endpoint.startswith(place)]
    return {row.endpoint.removeprefix(place): row.retired_at is None for row in rows}


@pytest.fixture
def plain(two: tuple[str, str], strategy: Path) -> tuple[str, str]:
    """Return the two files without a quota, which a multi-model endpoint knows not."""
    strategy.write_text(strategy.read_text().partition("[serving.quotas]")[0])
    return two


@pytest.mark.usefixtures("aws")
def test_strategies_share_an_endpoint_and_are_asked_there_until_it_is_stopped(
    run, plain, model, store, ledger, tmp_path, monkeypatch
):
    mean = np.asarray(load_binary_model(store.get(model).file("model.tar.gz")).mean_D)
    (tmp_path / "mean.csv").write_text(",".join(map(str, mean)) + "\n")
    words = ("deploy", "sagemaker", *plain)
    service = HostingService(0.0)
    with several(service, tmp_path, monkeypatch):
        done = run(*words, "--json")
        in_ledger = shared(ledger)
        ask = ("predict", "mean.csv", "--on", "sagemaker", "--endpoint", "trademl-serving")
        answer = json.loads(run(*ask, "--model", "alice.tar.gz", "--json").stdout)
        smaller = json.loads(run("deploy", "sagemaker", plain[1], "--json").stdout)
        after = shared(ledger)
        status = json.loads(run(*words, "--status", "--json").stdout)
        stopped = json.loads(run(*words, "--stop", "--json").stdout)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    score = pytest.approx(score_of(store, model), abs=1e-6)
    assert (found["endpoint"], found["change"], found["left"]) == ("trademl-serving", "created", [])
    assert found["strategies"] == {
        "es": {"model": model, "target": "es.tar.gz", "score": score},
        "alice": {"model": model, "target": "alice.tar.gz", "score": score},
    }
    assert in_ledger == {"es": True, "alice": True}
    assert (answer["id"], answer["predictions"][0]["score"]) == (model, score)
    assert (smaller["change"], smaller["left"]) == ("updated", ["es"])
    assert after == {"es": False, "alice": True}
    assert (status["status"], status["config"]) == ("InService", smaller["config"])
    assert stopped["status"] == "deleted"
    assert (service.endpoints, shared(ledger)) == ({}, {"es": False, "alice": False})


@pytest.mark.usefixtures("aws")
def test_a_failed_release_of_several_leaves_the_ledger_as_it_was(
    run, plain, ledger, tmp_path, monkeypatch
):
    with several(HostingService(0.0), tmp_path, monkeypatch) as runtime:
        run("deploy", "sagemaker", plain[1])
        before = shared(ledger)
        runtime.instead = {"es.tar.gz": "none.tar.gz"}
        failed = run("deploy", "sagemaker", *plain)

    last = failed.stderr.splitlines()[-1]
    assert failed.returncode == 1
    assert "endpoint trademl-serving (es.tar.gz) cannot be asked: Failed to download" in last
    assert "everything that this command had made was taken back" in last
    assert shared(ledger) == before == {"alice": True}


@pytest.mark.usefixtures("aws")
def test_a_dry_run_of_several_shows_the_requests_and_how_each_is_asked(run, plain, model):
    done = run("deploy", "sagemaker", *plain, "--dry-run")

    assert done.returncode == 0, done.stderr
    requests = json.loads(done.stdout)
    assert [next(iter(request)) for request in requests] == [
        "CreateModel", "CreateEndpointConfig", "CreateEndpoint", "UpdateEndpoint"
    ]  # fmt: skip
    assert requests[0]["CreateModel"]["PrimaryContainer"]["Mode"] == "MultiModel"
    assert f"  alice: {model}, asked as alice.tar.gz\n" in done.stderr
    assert "nothing was sent" in done.stderr


@pytest.mark.usefixtures("aws")
def test_several_with_a_quota_are_refused_in_one_line(run, two):
    done = run("deploy", "sagemaker", *two, "--dry-run")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "strategy es has a quota: a multi-model endpoint knows none" in done.stderr


@pytest.mark.usefixtures("aws")
def test_a_file_and_a_model_do_not_share_an_endpoint(run, two, model):
    done = run("deploy", "sagemaker", two[0], model, "--dry-run")

    assert done.returncode == 2
    assert "give strategy files (.toml), or the id of one model" in done.stderr


class Transforms:
    """An account's transform jobs: done at the second look, billed for two and a half minutes."""

    def __init__(self, s3: Any) -> None:
        self.s3, self.jobs, self.looks = s3, {}, 0
        self.server = DocumentedServer(
            {
                "DescribeModel": self.no_model,
                "CreateModel": lambda r: {"ModelArn": "arn:aws:sagemaker:eu-west-2:1:model/m"},
                "CreateTransformJob": self.create,
                "DescribeTransformJob": self.describe,
            }
        )

    def no_model(self, request: dict[str, Any]) -> dict[str, Any]:
        raise RefusalError("ValidationException", "Could not find model.")

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        self.jobs[request["TransformJobName"]] = request
        output = request["TransformOutput"]["S3OutputPath"].removeprefix(f"s3://{BUCKET}/")
        self.s3.put_object(Bucket=BUCKET, Key=f"{output}/rows.csv.out", Body=b"{}\n")
        return {"TransformJobArn": "arn:aws:sagemaker:eu-west-2:1:transform-job/t"}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["TransformJobName"]
        if name not in self.jobs:
            raise RefusalError("ValidationException", f"Could not find requested job {name}")
        self.looks += 1
        found = {**self.jobs[name], "CreationTime": 1.79e9, "TransformJobStatus": "InProgress"}
        if self.looks > 1:
            found |= {
                "TransformJobStatus": "Completed",
                "TransformStartTime": 1.79e9 + 60, "TransformEndTime": 1.79e9 + 210,
            }  # fmt: skip
        return found


def test_a_transform_job_is_kept_with_its_cost_as_training_jobs_are(
    run, model, aws, ledger, monkeypatch, tmp_path
):
    import boto3

    (tmp_path / "rows.csv").write_text("1,2,3\n")
    service = Transforms(boto3.client("s3", region_name=REGION))
    words = ("predict", "--batch", "rows.csv", "--on", "sagemaker")
    with answering(service, monkeypatch):
        left = run(*words, "--no-wait", "--json")
        (started,) = ledger.rows(tables.CloudJob)
        done = run(*words, "--json")
    (row,) = ledger.rows(tables.CloudJob)
    (shown,) = json.loads(run("aws", "jobs", "--json").stdout)["jobs"]

    assert json.loads(left.stdout)["status"] == started.status == "InProgress"
    assert json.loads(done.stdout)["job"] == row.name == started.name
    assert (row.kind, row.model_id, row.study_id) == ("transform", model, None)
    assert (row.status, row.billable_s, row.worst_case_usd) == (
        "Completed", 150, started.worst_case_usd,
    )  # fmt: skip
    assert (shown["kind"], shown["model_id"]) == ("transform", model)
    assert row.name in run("aws", "jobs").stdout


ALICE = '\n[serving]\nendpoint = "alice"\n[ladder]\ndeadline_ms = 250.0\n'
HERE = f"ec2:{REGION}/serving"


@pytest.fixture
def two(model: str, strategy: Path, ledger: Ledger) -> tuple[str, str]:
    """Return two strategy files of this folder, with the same model at both endpoints."""
    text = strategy.read_text()
    (strategy.parent / "alice.toml").write_text(text.replace('"es"', '"alice"') + ALICE)
    strategy.write_text(text + '[serving]\nendpoint = "es"\n[serving.quotas]\nes = {share = 0.6}\n')
    for endpoint in ("es", "alice"):
        ledger.record(
            tables.Deployment(id=f"d-{endpoint}", model_id=model, endpoint=endpoint, mode="live")
        )
    return "strategy.toml", "alice.toml"


@pytest.mark.usefixtures("aws")
def test_a_dry_run_on_ec2_shows_every_strategy_with_its_rules(run, two, model):
    done = run("deploy", "ec2", *two, "--dry-run")
    alone = run("deploy", "ec2", two[0], "--dry-run")

    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)[-1]["files"]
    es, alice = json.loads(files["serving.json"])["strategies"]
    assert (es["name"], es["quota"]["share"], es["models"][0]["id"]) == ("es", 0.6, model)
    assert (alice["name"], alice["ladder"]["deadline_ms"]) == ("alice", 250.0)
    assert f"  alice: {model}" in done.stderr
    release = re.search(r"release-\w{12}", done.stderr)[0]
    assert release in files["trademl.service"]
    assert release not in alone.stderr


@pytest.mark.usefixtures("aws")
def test_strategies_are_replaced_together_and_the_ledger_says_which_left(
    run, two, model, store, ledger, tmp_path, monkeypatch
):
    import boto3

    ec2 = boto3.client("ec2", region_name=REGION)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "trademl", "Value": "serving"}]}]
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tags)
    machine = stub_machine(tmp_path) | {"SCORE": str(score_of(store, model)), "MODEL": model}

    def deploy(*files: str) -> dict[str, Any]:
        ssm = Ssm(machine, rewrite=lambda script: rewrite_paths(script, tmp_path))
        machine["ARCHIVE"] = str(archive_of(run, store, files))
        with ssm.server.running() as server, monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL_SSM", server.url)
            done = run("deploy", "ec2", *files, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first, second = deploy(*two), deploy(two[1])

    assert (first["strategies"], first["left"]) == ({"es": model, "alice": model}, [])
    assert (second["strategies"], second["left"]) == ({"alice": model}, ["es"])
    rows = [r for r in ledger.rows(tables.Deployment) if r.endpoint.startswith(HERE)]
    assert {r.endpoint: r.retired_at is None for r in rows} == {
        f"{HERE}/es": False, f"{HERE}/alice": True
    }  # fmt: skip


def archive_of(run, store, files: tuple[str, ...]) -> Path:
    """Return the archive that a release of strategy files sends."""
    run("deploy", "ec2", *files, "--dry-run")
    return store.newest("serving").file("model.tar.gz")


def rewrite_paths(script: str, folder: Path) -> str:
    """Let a script write below a folder what it writes into the machine's own."""
    script = script.replace("root=/opt/trademl", f"root={folder / 'opt'}")
    return script.replace("units=/etc/systemd/system", f"units={folder / 'units'}")


@pytest.mark.usefixtures("aws", "model")
def test_a_release_is_refused_while_another_run_uses_the_workspace(run, store):
    with FileLock(store.root.parent / "run.lock"):
        done = run("deploy", "ec2", "--dry-run")

    assert done.returncode == 1
    assert "is in use by another run" in done.stderr


@pytest.mark.usefixtures("aws")
def test_a_file_and_a_model_are_not_deployed_together(run, two, model):
    done = run("deploy", "ec2", two[0], model, "--dry-run")

    assert done.returncode == 2
    assert "give strategy files (.toml), or the id of one model" in done.stderr


@pytest.mark.usefixtures("aws")
def test_a_strategy_at_whose_endpoint_nothing_stands_is_refused(run, two, strategy):
    path = strategy.parent / "alice.toml"
    path.write_text(path.read_text().replace('endpoint = "alice"', 'endpoint = "diana"'))

    done = run("deploy", "ec2", *two, "--dry-run")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "nothing is deployed at endpoint diana" in done.stderr


@pytest.mark.usefixtures("aws")
def test_a_dry_run_of_a_launch_without_a_profile_is_refused_as_the_launch_is(run, model):
    done = run("deploy", "ec2", "--launch", "--dry-run")

    assert (done.returncode, done.stdout) == (1, "")
    assert "lacks instance_profile" in done.stderr
