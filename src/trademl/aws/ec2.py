"""A release brought to machines on EC2 over SSM: no SSH, no open port, no key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trademl.aws.clients import client
from trademl.aws.ec2_release import Release
from trademl.aws.ec2_settings import check_launch
from trademl.aws.failures import aws_errors, code_of
from trademl.aws.upload import upload_files
from trademl.errors import CloudError
from trademl.ports import Progress, Silent

LOOK_S = 5.0
ONLINE_S = 600.0
_GOING_ON = ("Pending", "InProgress", "Delayed", "Cancelling")
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class DeployedRelease:
    """Where a release answers, what its machines said, and which strategies it has replaced."""

    release: str
    instances: Mapping[str, str]
    is_launched: bool
    strategies: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()


def deploy_release(
    release: Release,
    *,
    launch: bool = False,
    progress: Progress | None = None,
    sleep: Sleep = time.sleep,
) -> DeployedRelease:
    """Install a release on every machine of the name, or on one that is launched for it.

    Each machine asks its own server a question for each strategy, and goes back to the release
    before where an answer is wrong. A machine that was launched here and fails is terminated.

    Raises
    ------
    CloudError
        If AWS refuses, there is no machine, or one of them fails; the message quotes it.
    """
    progress = progress or Silent()
    region = release.aws.region
    ec2, ssm, s3 = (client(name, region) for name in ("ec2", "ssm", "s3"))
    archive = {release.archive.name: release.archive}
    if launch:
        check_launch(release.ec2)
    else:
        instances = find_instances(release, ec2)
    upload_files(archive, release.uri.rpartition("/")[0], release.aws, s3, progress)
    if launch:
        instances = [_launch(release, ec2, progress)]
    try:
        _wait_online(instances, ssm, sleep)
        said = _install(release, instances, ssm, progress, sleep)
    except CloudError as error:
        if not launch:
            raise
        with aws_errors(f"terminating {instances[0]}"):
            ec2.terminate_instances(InstanceIds=instances)
        raise CloudError(f"{error}; {instances[0]} was terminated") from error
    return DeployedRelease(release.id, said, launch, release.models)


def find_instances(release: Release, ec2: Any) -> list[str]:
    """Return the running machines that a release is for.

    Raises
    ------
    CloudError
        If there is none.
    """
    if release.ec2.instance_id:
        return [release.ec2.instance_id]
    filters = [
        {"Name": "tag:trademl", "Values": [release.ec2.name]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    with aws_errors("looking for machines"):
        pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)
        reservations = [r for page in pages for r in page["Reservations"]]
    found = [one["InstanceId"] for r in reservations for one in r["Instances"]]
    if not found:
        raise CloudError(
            f"no machine with the tag trademl={release.ec2.name} runs in {release.aws.region}: tag "
            "one, set ec2.instance_id, or add --launch"
        )
    return sorted(found)


def _launch(release: Release, ec2: Any, progress: Progress) -> str:
    progress.step("launch", release.ec2.instance_type)
    with aws_errors("launching a machine"):
        answer = ec2.run_instances(**release.launch_request)
    name = str(answer["Instances"][0]["InstanceId"])
    progress.done(name)
    return name


def _wait_online(instances: list[str], ssm: Any, sleep: Sleep) -> None:
    """Return when SSM reaches every machine."""
    filters = [{"Key": "InstanceIds", "Values": instances}]
    for _ in range(int(ONLINE_S / LOOK_S)):
        with aws_errors("asking SSM for the machines"):
            answer = ssm.describe_instance_information(Filters=filters)
        states = {i["InstanceId"]: i["PingStatus"] for i in answer["InstanceInformationList"]}
        away = [name for name in instances if states.get(name) != "Online"]
        if not away:
            return
        sleep(LOOK_S)
    raise CloudError(
        f"SSM does not reach {away[0]}: it needs the agent, a way to AWS, and a profile with "
        "AmazonSSMManagedInstanceCore"
    )


def _install(
    release: Release, instances: list[str], ssm: Any, progress: Progress, sleep: Sleep
) -> dict[str, str]:
    """Run the install script machine by machine, so that one failure leaves the others as is."""
    said: dict[str, str] = {}
    for number, instance in enumerate(instances):
        progress.step("install", instance)
        with aws_errors(f"sending {release.id} to {instance}"):
            answer = ssm.send_command(InstanceIds=[instance], **release.command_request)
        ended = _wait_command(answer["Command"]["CommandId"], instance, ssm, sleep)
        if ended["Status"] != "Success":
            lines = str(ended.get("StandardErrorContent", "")).strip().splitlines()
            words = " ".join(lines[-2:])[-300:] or ended.get("StatusDetails", "no reason")
            rest = f"; {', '.join(instances[number + 1 :])} left as before" if said else ""
            raise CloudError(f"{instance}: {ended['Status']}: {words}{rest}")
        said[instance] = str(ended.get("StandardOutputContent", "")).strip().rpartition("\n")[2]
        progress.done(said[instance])
    return said


def _wait_command(command: str, instance: str, ssm: Any, sleep: Sleep) -> Mapping[str, Any]:
    from botocore.exceptions import ClientError

    while True:
        with aws_errors(f"looking at what {instance} does"):
            try:
                found: Mapping[str, Any] = ssm.get_command_invocation(
                    CommandId=command, InstanceId=instance
                )
            except ClientError as error:
                if code_of(error) != "InvocationDoesNotExist":  # sent a moment ago
                    raise
                found = {"Status": "Pending"}
        if found["Status"] not in _GOING_ON:
            return found
        sleep(LOOK_S)
