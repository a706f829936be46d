"""A release on EC2: its files are sound, its script installs, checks and goes back, over SSM."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

from aws_cases import DocumentedServer
from hosting_cases import AWS, HOSTING, model_artifact
from trademl.aws.ec2 import deploy_release
from trademl.aws.ec2_release import MAX_USER_DATA_BYTES, Release, plan_release
from trademl.aws.ec2_settings import Ec2Config
from trademl.errors import CloudError, ConfigError

SCORE = 0.5621765  # sigmoid(0.25)
EC2 = Ec2Config(instance_profile="trademl-serving", subnet="subnet-1", security_groups=("sg-1",))
# What the script calls, answering as on a machine; each call is a line of $LOG.
STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "$LOG"
case "$(basename "$0") $*" in
  aws\\ s3*) cp "$ARCHIVE" "${@: -1}" ;;
  curl*invocations*) printf '{"predictions":[{"score":%s,"predicted_label":0.0}]}' "$SCORE" ;;
  curl*ping*) exit "${PING:-0}" ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a machine whose programs are stubs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("aws", "docker", "systemctl", "curl"):
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    (tmp_path / "units").mkdir()
    archive = model_artifact(tmp_path / "store").file("model.tar.gz")
    log = tmp_path / "log"
    return {"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(log), "ARCHIVE": str(archive),
            "SCORE": str(SCORE)}  # fmt: skip


def release(tmp_path: Path, **changes: Any) -> Release:
    return plan_release(
        model_artifact(tmp_path / "store"), AWS, HOSTING, replace(EC2, **changes), strategy="es",
        root=str(tmp_path / "opt"), units=str(tmp_path / "units"), tries=2,
    )  # fmt: skip


def install(found: Release, machine: dict[str, str], **env: str):
    return subprocess.run(
        ["bash", "-c", found.install], env={**machine, **env}, capture_output=True, text=True,
        check=False, timeout=30,
    )  # fmt: skip


def test_a_release_is_installed_and_asked(tmp_path, machine):
    found = release(tmp_path)

    done = install(found, machine)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"release {found.id} answers, score {SCORE}")
    current = tmp_path / "opt/current"
    assert current.resolve().name == found.id
    assert (current / "model/model.json").is_file()
    assert (current / "compose.yaml").read_text() == found.compose
    assert (tmp_path / "units/trademl.service").read_text() == found.unit


def test_a_release_that_scores_otherwise_goes_back_to_the_one_before(tmp_path, machine):
    first, second = release(tmp_path), release(tmp_path, port=9090)
    install(first, machine)

    done = install(second, machine, SCORE="0.9")

    assert done.returncode == 1
    assert f"{first.id} runs again" in done.stderr
    assert (tmp_path / "opt/current").resolve().name == first.id
    assert (tmp_path / "units/trademl.service").read_text() == first.unit
    assert (tmp_path / "log").read_text().count("systemctl restart") == 3


def test_a_first_release_that_does_not_answer_is_stopped(tmp_path, machine):
    done = install(release(tmp_path), machine, PING="22")

    assert done.returncode == 1
    assert "there is none before it" in done.stderr
    assert not (tmp_path / "opt/current").exists()


def test_an_archive_of_another_digest_is_not_installed(tmp_path, machine):
    other = model_artifact(tmp_path / "store", "model-000000000009", bias=0.9)

    done = install(release(tmp_path), machine, ARCHIVE=str(other.file("model.tar.gz")))

    assert done.returncode != 0
    assert "systemctl" not in (tmp_path / "log").read_text()


def test_the_container_is_told_what_its_callers_call_the_strategy(tmp_path):
    found = plan_release(model_artifact(tmp_path), AWS, HOSTING, EC2, strategy="es", endpoint="btc")

    assert "--env TRADEML_STRATEGY=btc " in found.unit
    container = yaml.safe_load(found.compose)["services"]["trademl"]
    assert container["environment"]["TRADEML_STRATEGY"] == "btc"
    with pytest.raises(ConfigError, match="endpoint is 'b c', expected letters"):
        plan_release(model_artifact(tmp_path), AWS, HOSTING, EC2, strategy="es", endpoint="b c")


def test_scripts_are_shell(tmp_path):
    found = release(tmp_path)
    for script in (found.install, found.user_data):
        assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    assert len(found.user_data.encode()) < MAX_USER_DATA_BYTES


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path):
    path = tmp_path / "trademl.service"
    path.write_text(release(tmp_path).unit.replace("/usr/bin/docker", "/usr/bin/true"))
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/usr/bin/true\n")

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True,
        check=False, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip

    assert "trademl.service" not in done.stderr, done.stderr


def test_the_compose_file_has_known_keys_only(tmp_path):
    document = yaml.safe_load(release(tmp_path).compose)
    known = {
        "image", "command", "user", "read_only", "tmpfs", "cap_drop", "security_opt", "ports",
        "volumes", "environment", "restart", "stop_grace_period",
    }  # fmt: skip

    assert set(document) == {"services"}
    assert set(document["services"]["trademl"]) == known
    assert document["services"]["trademl"]["ports"] == ["127.0.0.1:8080:8080"]


def test_requests_are_those_of_the_api(tmp_path):
    found = release(tmp_path)
    session = botocore.session.get_session()
    for service, operation, request in (
        ("ec2", "RunInstances", found.launch_request),
        ("ssm", "SendCommand", {"InstanceIds": ["i-0123456789abcdef0"], **found.command_request}),
    ):
        shape = session.get_service_model(service).operation_model(operation).input_shape
        assert ParamValidator().validate(request, shape).generate_report() == ""
        assert set(request) <= set(shape.members)


def test_a_machine_without_the_tag_is_not_told_anything(aws, tmp_path):
    with pytest.raises(CloudError, match="no machine with the tag trademl=serving"):
        deploy_release(release(tmp_path))


def test_launching_without_a_profile_is_refused(aws, tmp_path):
    with pytest.raises(ConfigError, match="lacks instance_profile"):
        deploy_release(release(tmp_path, instance_profile=""), launch=True)


def test_the_script_that_is_sent_writes_the_files_that_are_shown(tmp_path):
    found = release(tmp_path)

    assert base64.b64encode(found.unit.encode()).decode() in found.install
    assert base64.b64encode(found.compose.encode()).decode() in found.install


COMMAND = "11111111-2222-3333-4444-555555555555"


class Ssm:
    """SSM of an account whose machines run what they are sent, here."""

    def __init__(self, machine: dict[str, str]) -> None:
        self.machine = machine
        self.done: dict[str, subprocess.CompletedProcess[str]] = {}
        self.server = DocumentedServer(
            {
                "DescribeInstanceInformation": self.online,
                "SendCommand": self.send,
                "GetCommandInvocation": self.result,
            }
        )

    def online(self, request: dict[str, Any]) -> dict[str, Any]:
        names = request["Filters"][0]["Values"]
        return {
            "InstanceInformationList": [{"InstanceId": n, "PingStatus": "Online"} for n in names]
        }

    def send(self, request: dict[str, Any]) -> dict[str, Any]:
        script = "\n".join(request["Parameters"]["commands"])
        self.done[COMMAND] = subprocess.run(
            ["bash", "-c", script], env=self.machine, capture_output=True, text=True, check=False,
            timeout=30,
        )  # fmt: skip
        return {"Command": {"CommandId": COMMAND}}

    def result(self, request: dict[str, Any]) -> dict[str, Any]:
        done = self.done[request["CommandId"]]
        status = "Failed" if done.returncode else "Success"
        return {"Status": status, "StandardOutputContent": done.stdout,
                "StandardErrorContent": done.stderr}  # fmt: skip


@pytest.fixture
def ec2(aws: str) -> Any:
    import boto3

    return boto3.client("ec2", region_name=AWS.region)


def run_instances(ec2: Any, name: str) -> str:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "trademl", "Value": name}]}]
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    answer = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tags)
    return answer["Instances"][0]["InstanceId"]


def test_a_tagged_machine_is_told_over_ssm_and_says_its_score(ec2, tmp_path, machine, monkeypatch):
    instance = run_instances(ec2, "serving")
    run_instances(ec2, "another")
    ssm = Ssm(machine)
    with ssm.server.running() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", server.url)
        done = deploy_release(release(tmp_path), sleep=lambda _: None)

    assert list(done.instances) == [instance]
    assert done.instances[instance].endswith(f"score {SCORE}")


def test_a_launched_machine_that_fails_is_terminated(ec2, tmp_path, machine, monkeypatch):
    import boto3

    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    found = release(tmp_path, ami=image, subnet="", security_groups=())
    iam = boto3.client("iam", region_name=AWS.region)
    iam.create_instance_profile(InstanceProfileName=EC2.instance_profile)
    ssm = Ssm({**machine, "SCORE": "0.9"})
    with ssm.server.running() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", server.url)
        with pytest.raises(CloudError, match="there is none before it; i-.* was terminated"):
            deploy_release(found, launch=True, sleep=lambda _: None)

    states = [
        one["State"]["Name"]
        for r in ec2.describe_instances()["Reservations"]
        for one in r["Instances"]
    ]
    assert states == ["terminated"]
