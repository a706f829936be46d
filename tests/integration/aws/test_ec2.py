"""A release on EC2: its files are sound, its script installs, checks and goes back, over SSM."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.session
import numpy as np
import pytest
import yaml
from botocore.validate import ParamValidator

from aws_cases import BUCKET
from ec2_cases import Ssm, stub_machine
from hosting_cases import AWS, HOSTING, score_of, served_strategy
from trademl.aws.ec2 import deploy_release
from trademl.aws.ec2_release import MAX_USER_DATA_BYTES, Release, plan_release
from trademl.aws.ec2_settings import Ec2Config
from trademl.errors import CloudError, ConfigError
from trademl.serve.client import predict
from trademl.serve.command import ServeOptions
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.serving_artifact import serving_artifact
from trademl.serve.shares import Quota
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import ArtifactStore

ENTRYPOINT = Path(__file__).resolve().parents[3] / "docker" / "entrypoint.sh"
SCORE = score_of(0.25)
MODEL = f"model-{round(0.25e6):012x}"
EC2 = Ec2Config(instance_profile="trademl-serving", subnet="subnet-1", security_groups=("sg-1",))


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a machine whose programs are stubs."""
    return {**stub_machine(tmp_path), "SCORE": str(SCORE), "MODEL": MODEL,
            "ARCHIVE": str(release(tmp_path).archive)}  # fmt: skip


def release(tmp_path: Path, *strategies: ServedStrategy, **changes: Any) -> Release:
    served = strategies or (served_strategy(tmp_path / "store"),)
    serving = serving_artifact(served, ArtifactStore(tmp_path / "store"))
    return plan_release(
        serving, served, AWS, HOSTING, replace(EC2, **changes),
        root=str(tmp_path / "opt"), units=str(tmp_path / "units"), tries=2,
    )  # fmt: skip


def install(found: Release, machine: dict[str, str], **env: str):
    return subprocess.run(
        ["bash", "-c", found.install], env={**machine, **env}, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip


def test_a_release_is_installed_and_asked(tmp_path, machine):
    found = release(tmp_path)

    done = install(found, machine)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"release {found.id} answers, es scores {SCORE} by {MODEL}")
    current = tmp_path / "opt/current"
    assert current.resolve().name == found.id
    assert (current / "model/serving.json").is_file()
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


TWO = {"btc": (0.5, 0.25), "alice": (0.75,)}


@pytest.fixture
def two(tmp_path: Path, machine: dict[str, str]) -> Release:
    """Return a release of two strategies, the first with two models, and let the machine answer."""
    found = release(
        tmp_path, *(served_strategy(tmp_path / "store", n, *biases) for n, biases in TWO.items())
    )
    machine["ARCHIVE"] = str(found.archive)
    for name, biases in TWO.items():
        answer(machine, name, biases[0])
    return found


def answer(machine: dict[str, str], strategy: str, bias: float, reason: str = "normal") -> None:
    """Let a strategy be answered by the model of a bias."""
    text = f"{score_of(bias)} model-{round(bias * 1e6):012x} {reason}\n"
    (Path(machine["ANSWERS"]) / strategy).write_text(text)


def test_each_strategy_of_a_release_is_asked(two, machine):
    done = install(two, machine)

    assert done.returncode == 0, done.stderr
    assert f"btc scores {score_of(0.5)} by" in done.stdout
    assert f"alice scores {score_of(0.75)} by" in done.stdout


@pytest.mark.parametrize(
    ("strategy", "bias", "said"),
    [
        ("alice", 0.5, "alice scores .* expected one of its own models"),
        ("btc", 0.25, "btc is answered by .* alone, its biggest model does not come up"),
    ],
)
def test_one_strategy_that_fails_takes_all_back(tmp_path, two, machine, strategy, bias, said):
    first = release(tmp_path)
    install(first, machine, ARCHIVE=str(first.archive))
    answer(machine, strategy, bias)

    done = install(two, machine)

    assert re.search(said, done.stderr), done.stderr
    assert f"{first.id} runs again" in done.stderr
    assert (tmp_path / "units/trademl.service").read_text() == first.unit


def test_a_smaller_model_may_answer_under_load(two, machine):
    answer(machine, "btc", 0.25, reason="load")

    assert install(two, machine).returncode == 0


def test_a_release_is_named_after_everything_that_is_served(tmp_path):
    store = tmp_path / "store"
    strategies = [
        served_strategy(store, "btc", 0.5, 0.25),
        served_strategy(store, "alice", 0.5, 0.25),
        served_strategy(store, "btc", 0.25),
        served_strategy(store, "btc", 0.5, 0.25, policy=LadderPolicy(deadline_ms=5.0)),
        served_strategy(store, "btc", 0.5, 0.25, freshness=Freshness(max_spread=5.0)),
        served_strategy(store, "btc", 0.5, 0.25, quota=Quota(share=0.5)),
        served_strategy(store, "btc", 0.5, 0.25, mode="shadow"),
    ]
    ids = {release(tmp_path, one).id for one in strategies}
    ids |= {release(tmp_path, *strategies[:2]).id, release(tmp_path, *strategies[1::-1]).id}
    ids |= {release(tmp_path, strategies[0], port=81).id}

    assert len(ids) == len(strategies) + 3
    assert release(tmp_path, strategies[0]).id in ids


def test_a_model_on_a_card_is_given_the_machines_cards(tmp_path):
    one = served_strategy(tmp_path / "store")
    found = release(tmp_path, replace(one, ladder=(replace(one.ladder[0], device="cuda"),)))

    assert "--gpus all " in found.unit
    assert yaml.safe_load(found.compose)["services"]["trademl"]["gpus"] == "all"


@pytest.mark.parametrize("call", ["systemctl restart*", "systemctl daemon-reload*", "curl*ping*"])
def test_a_machine_that_does_not_take_a_release_goes_back(tmp_path, machine, call):
    first, second = release(tmp_path), release(tmp_path, port=9090)
    install(first, machine)
    once = {"FAIL_ONCE": str(tmp_path / "failed")} if "curl" not in call else {}
    call = "curl*9090/ping*" if "curl" in call else call

    done = install(second, machine, FAIL=call, **once)

    assert done.returncode == 1
    assert f"{second.id} failed" in done.stderr.splitlines()[-1]
    assert (tmp_path / "opt/current").resolve().name == first.id
    assert (tmp_path / "units/trademl.service").read_text() == first.unit


def test_a_machine_on_which_nothing_comes_up_any_more_is_said_to_be_down(tmp_path, machine):
    first, second = release(tmp_path), release(tmp_path, port=9090)
    install(first, machine)

    done = install(second, machine, FAIL="systemctl restart*")

    assert done.returncode == 1
    assert f"{first.id} does not come up again" in done.stderr


@pytest.mark.parametrize("call", ["docker pull*", "aws s3*"])
def test_what_cannot_be_brought_changes_nothing(tmp_path, machine, call):
    first, second = release(tmp_path), release(tmp_path, port=9090)
    install(first, machine)

    done = install(second, machine, FAIL=call)

    assert done.returncode == 1
    assert done.stderr.strip().endswith("is not installed, what ran before runs on")
    assert (tmp_path / "log").read_text().count("systemctl restart") == 1


def test_the_same_release_again_goes_back_to_the_one_before_it(tmp_path, machine):
    first, second = release(tmp_path), release(tmp_path, port=9090)
    install(first, machine)
    install(second, machine)

    done = install(second, machine, SCORE="0.9")

    assert f"{first.id} runs again" in done.stderr
    assert (tmp_path / "opt/current").resolve().name == first.id


def test_an_archive_of_another_digest_is_not_installed(tmp_path, machine):
    other = release(tmp_path, served_strategy(tmp_path / "store", "es", 0.9))

    done = install(release(tmp_path), machine, ARCHIVE=str(other.archive))

    assert done.returncode != 0
    assert "systemctl" not in (tmp_path / "log").read_text()


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
        "volumes", "restart", "stop_grace_period",
    }  # fmt: skip

    assert set(document) == {"services"}
    assert set(document["services"]["trademl"]) == known
    assert document["services"]["trademl"]["ports"] == ["127.0.0.1:8080:8080"]


TOLD = ServeOptions(
    workers=2, capture=f"s3://{BUCKET}/kept", capture_percent=100.0, log_requests=0.5, emf=False
)


def words_of(found: Release) -> list[str]:
    """Return what the unit gives the image."""
    (line,) = [line for line in found.unit.splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(line)
    return words[words.index(HOSTING.image) + 1 :]


def test_the_unit_and_the_compose_file_tell_the_server_the_same(tmp_path):
    plain, told = release(tmp_path), release(tmp_path, serve=TOLD)

    assert words_of(plain) == ["serve"]
    assert words_of(told) == ["serve", *TOLD.words()]
    assert yaml.safe_load(told.compose)["services"]["trademl"]["command"] == words_of(told)
    assert told.id != plain.id


def test_a_container_that_captures_reaches_the_rights_of_its_machine(tmp_path):
    options = release(tmp_path, serve=TOLD).launch_request["MetadataOptions"]

    assert options == {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}


@pytest.mark.parametrize("place", ["kept", "/kept", "s3://", "s3://bucket/a b", "s3://bucket/%h"])
def test_a_container_captures_to_s3_alone(place):
    with pytest.raises(ConfigError, match="expected s3://bucket/prefix"):
        replace(EC2, serve=ServeOptions(capture=place))


@pytest.mark.usefixtures("aws")
def test_what_the_unit_runs_answers_on_workers_and_keeps_its_answers_in_s3(tmp_path):
    import boto3

    found = release(tmp_path, serve=TOLD)
    with tarfile.open(found.archive) as tar:
        tar.extractall(tmp_path / "ml" / "model", filter="data")
    program = tmp_path / "bin" / "trademl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m trademl "$@"\n')
    program.chmod(0o755)
    env = {
        **os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}",
        "TRADEML_ML": str(tmp_path / "ml"), "SAGEMAKER_BIND_TO_PORT": "0",
    }  # fmt: skip
    with subprocess.Popen(
        [ENTRYPOINT, *words_of(found)], env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        said = ""
        while "2 workers answer at " not in said:
            said = json.loads(process.stderr.readline())["message"]
        url = said.rpartition(" at ")[2].replace("0.0.0.0", "127.0.0.1")
        score = predict(url, np.array([[0.1, 0.0, -0.2]], np.float32)).score_N[0]
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()

    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="kept/es/AllTraffic/")
    assert score == pytest.approx(SCORE, abs=1e-6)
    assert process.returncode == 0, rest
    assert listed["KeyCount"] == 1
    assert "_aws" not in rest


def test_requests_are_those_of_the_api(tmp_path):
    found = release(tmp_path, serve=TOLD)
    session = botocore.session.get_session()
    for service, operation, request in (
        ("ec2", "RunInstances", found.launch_request),
        ("ssm", "SendCommand", {"InstanceIds": ["i-0123456789abcdef0"], **found.command_request}),
    ):
        shape = session.get_service_model(service).operation_model(operation).input_shape
        assert ParamValidator().validate(request, shape).generate_report() == ""
        assert set(request) <= set(shape.members)


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("10.0.0.7", "http://10.0.0.7:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("fd00::7", "http://[fd00::7]:8080"),
    ],
)
def test_a_machine_asks_where_its_server_listens(tmp_path, bind, url):
    found = release(tmp_path, bind=bind, open=True)

    assert f"{url}/invocations" in found.install
    assert f"echo {url} >" in found.install


def test_an_address_that_others_reach_needs_a_token_or_an_explicit_word():
    with pytest.raises(ConfigError, match="which others can reach: set token_parameter"):
        replace(EC2, bind="10.0.0.7")
    assert replace(EC2, bind="10.0.0.7", open=True).bind == "10.0.0.7"
    assert replace(EC2, bind="10.0.0.7", token_parameter="/trademl/tokens").bind == "10.0.0.7"


@pytest.mark.parametrize("name", ["tokens; rm -rf /", "$(id)", "a b"])
def test_a_parameter_that_a_shell_would_read_is_refused(name):
    with pytest.raises(ConfigError, match="expected the name of a parameter"):
        replace(EC2, token_parameter=name)


def test_tokens_come_from_ssm_and_are_in_no_file_of_a_release(tmp_path, machine):
    found = release(tmp_path, token_parameter="/trademl/tokens")

    done = install(found, machine, TOKENS="# who may ask\npredict predict-token-0001")

    log = (tmp_path / "log").read_text()
    assert done.returncode == 0, done.stderr
    assert "aws ssm get-parameter --with-decryption" in log
    assert "chown 10001:10001" in log
    assert "Authorization: Bearer predict-token-0001" in log  # from a file, not an argument
    assert not any("predict-token" in line for line in log.splitlines() if line[:4] == "curl")
    assert (tmp_path / "opt/current/tokens").stat().st_mode & 0o777 == 0o600
    service = yaml.safe_load(found.compose)["services"]["trademl"]
    assert service["command"] == ["serve", "--token-file", "/run/trademl/tokens"]
    assert service["volumes"][1].endswith("/tokens:/run/trademl/tokens:ro")


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
    assert done.instances[instance].endswith(f"scores {SCORE} by {MODEL}")


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
