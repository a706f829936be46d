"""What a machine on EC2 is given, as pure values: unit, Compose file, user data, install script."""

from __future__ import annotations

import base64
import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from trademl.aws.ec2_settings import Ec2Config
from trademl.aws.hosting import HostingConfig, check_hostable
from trademl.aws.settings import AwsConfig, check_launchable
from trademl.errors import ConfigError
from trademl.serve.placement import CPU
from trademl.serve.serving_folder import model_files, serving_document
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import Artifact
from trademl.store.identity import artifact_id, digest_file
from trademl.train.model_archive import MODEL_FILE

ROOT, UNITS = "/opt/trademl", "/etc/systemd/system"
TOKENS = "/run/trademl/tokens"  # in the container
MAX_USER_DATA_BYTES = 16 * 1024
_ECR = re.compile(r"(\d{12}\.dkr\.ecr\.([a-z0-9\-]+)\.[a-z.]+)/")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:@]*")


class _Template(string.Template):
    """Placeholders that no shell, unit or YAML uses: ``@@{name}``."""

    delimiter = "@@"


@dataclass(frozen=True)
class Release:
    """Strategies in one image on one machine.

    Parameters
    ----------
    id : str
        Made of everything that is served, and of how.
    strategies : tuple of ServedStrategy
    archive : Path
        Their serving folder, here; it is sent to ``uri``.
    unit, compose, user_data, install : str
    """

    id: str
    strategies: tuple[ServedStrategy, ...]
    archive: Path
    uri: str
    unit: str
    compose: str
    user_data: str
    install: str
    aws: AwsConfig
    ec2: Ec2Config

    @property
    def models(self) -> dict[str, str]:
        """What is deployed of each strategy."""
        return {s.name: s.ladder[s.followed].id for s in self.strategies}

    @property
    def place(self) -> str:
        """What the ledger calls the machines; each strategy's endpoint is below it."""
        return f"ec2:{self.aws.region}/{self.ec2.instance_id or self.ec2.name}"

    @property
    def command_request(self) -> dict[str, Any]:
        """The request of SSM's ``SendCommand``, but for the machines."""
        return {
            "DocumentName": "AWS-RunShellScript",
            "Comment": f"trademl {self.id}",
            "TimeoutSeconds": 600,
            "Parameters": {
                "commands": self.install.splitlines(),
                "executionTimeout": [str(self.ec2.timeout_s)],
            },
        }

    @property
    def launch_request(self) -> dict[str, Any]:
        """The request of EC2's ``RunInstances``."""
        ec2 = self.ec2
        tags = {"Name": f"trademl-{ec2.name}", "trademl": ec2.name, **(self.aws.tags or {})}
        found: dict[str, Any] = {
            "ImageId": ec2.ami,
            "InstanceType": ec2.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            "UserData": self.user_data,
            "IamInstanceProfile": {"Name": ec2.instance_profile},
            "MetadataOptions": self._metadata_options,
            "BlockDeviceMappings": [
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {"VolumeSize": ec2.volume_gb, "VolumeType": "gp3", "Encrypted": True},
                }
            ],
            "TagSpecifications": [
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
                }
            ],
        }
        if ec2.subnet:
            found["SubnetId"] = ec2.subnet
        if ec2.security_groups:
            found["SecurityGroupIds"] = list(ec2.security_groups)
        return found

    @property
    def _metadata_options(self) -> dict[str, Any]:
        """A container that writes to S3 asks for its rights one hop further than its machine."""
        further = {"HttpPutResponseHopLimit": 2} if self.ec2.serve.capture else {}
        return {"HttpTokens": "required", **further}

    @property
    def files(self) -> dict[str, str]:
        """Every rendered file by its name."""
        serving = json.loads(serving_document(self.strategies))
        return {
            "serving.json": json.dumps(serving, indent=1),
            "trademl.service": self.unit,
            "compose.yaml": self.compose,
            "user-data.sh": self.user_data,
            "install.sh": self.install,
        }


def plan_release(
    serving: Artifact,
    strategies: Sequence[ServedStrategy],
    aws: AwsConfig,
    hosting: HostingConfig,
    ec2: Ec2Config,
    *,
    root: str = ROOT,
    units: str = UNITS,
    tries: int = 60,
) -> Release:
    """Return a release of strategies; nothing is sent.

    Parameters
    ----------
    serving : Artifact
        Their serving folder: see `trademl.serve.serving_artifact`.
    root, units : str
        Folders of releases and of systemd's units on the machine.
    tries : int
        Seconds that the server has until it answers, and each strategy's biggest model.

    Raises
    ------
    ConfigError
        If ``[aws]`` or ``[hosting]`` lacks something, or the image is no address.
    """
    check_launchable(aws)
    check_hostable(hosting)
    if not _IMAGE.fullmatch(hosting.image):
        raise ConfigError(f"image is {hosting.image!r}, expected an address without spaces")
    archive = serving.file(MODEL_FILE)
    sha256 = digest_file(archive)
    uri = aws.uri("serving", serving.id, sha256[:12], MODEL_FILE)
    command = ["serve", *ec2.serve.words()]
    command += ["--token-file", TOKENS] if ec2.token_parameter else []
    given = {
        "serving": sha256, "image": hosting.image, "bind": ec2.bind, "port": ec2.port,
        "tokens": ec2.token_parameter, "command": command, "files": _templates(),
    }  # fmt: skip
    release = artifact_id("release", {}, given, code="2")
    folder = f"{root}/releases/{release}"
    volumes = [f"{folder}/model:/opt/ml/model:ro"]
    volumes += [f"{folder}/tokens:{TOKENS}:ro"] if ec2.token_parameter else []
    has_cards = any(m.device != CPU for s in strategies for m in model_files(s))
    values = {
        "release": release, "root": root, "units": units, "folder": folder,
        "bind": _bracketed(ec2.bind), "port": str(ec2.port), "url": ec2.own_url,
        "image": hosting.image, "region": aws.region, "uri": uri, "sha256": sha256,
        "tries": str(tries), "login": _login(hosting.image), "tokens": _fetch_tokens(ec2, aws),
        "command": " ".join(command), "command_list": json.dumps(command),
        "volumes": " ".join(f"--volume {volume}" for volume in volumes),
        "volume_list": json.dumps(volumes), "cards": "--gpus all " if has_cards else "",
        "cards_line": "\n    gpus: all" if has_cards else "",
    }  # fmt: skip
    unit, compose = _rendered("trademl.service", values), _rendered("compose.yaml", values)
    values |= {"unit_base64": _encoded(unit), "compose_base64": _encoded(compose)}
    user_data = _rendered("user-data.sh", values)
    if len(user_data.encode()) > MAX_USER_DATA_BYTES:
        raise ConfigError(f"user data has more than {MAX_USER_DATA_BYTES} bytes: EC2 refuses it")
    install = _rendered("install.sh", values)
    return Release(
        release, tuple(strategies), archive, uri, unit, compose, user_data, install, aws, ec2
    )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _fetch_tokens(ec2: Ec2Config, aws: AwsConfig) -> str:
    """Return the lines that bring the tokens to the machine; they are in no file of the release."""
    if not ec2.token_parameter:
        return ":"
    return (
        "(umask 077; aws ssm get-parameter --with-decryption --query Parameter.Value "
        f"--output text --region {aws.region} --name {ec2.token_parameter} "
        '> "$release/tokens")\nchown 10001:10001 "$release/tokens"'
    )


def _login(image: str) -> str:
    """Return the line that lets Docker read an image of ECR; others need none."""
    if not (found := _ECR.match(image)):
        return ":"
    registry, region = found.groups()
    return (
        f"aws ecr get-login-password --region {region} "
        f"| docker login --username AWS --password-stdin {registry}"
    )


def _rendered(name: str, values: dict[str, str]) -> str:
    return _Template(_template(name)).substitute(values)


def _template(name: str) -> str:
    return resources.files("trademl.aws").joinpath("ec2_files", name).read_text()


def _templates() -> list[str]:
    return [_template(n) for n in ("trademl.service", "compose.yaml", "user-data.sh", "install.sh")]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
