"""What a machine on EC2 is given, as pure values: unit, Compose file, user data, install script."""

from __future__ import annotations

import base64
import json
import re
import string
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from trademl.aws.ec2_settings import Ec2Config
from trademl.aws.endpoint_plan import HostedModel, hosted_model
from trademl.aws.hosting import HostingConfig, check_hostable
from trademl.aws.settings import AwsConfig, check_launchable
from trademl.errors import ConfigError
from trademl.serve.container import DEFAULT_NAME
from trademl.serve.served import Mode
from trademl.store.artifacts import Artifact
from trademl.store.identity import artifact_id, digest_file
from trademl.train.model import load_binary_model

ROOT, UNITS = "/opt/trademl", "/etc/systemd/system"
MAX_USER_DATA_BYTES = 16 * 1024
_ECR = re.compile(r"(\d{12}\.dkr\.ecr\.([a-z0-9\-]+)\.[a-z.]+)/")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:@]*")


class _Template(string.Template):
    """Placeholders that no shell, unit or YAML uses: ``@@{name}``."""

    delimiter = "@@"


@dataclass(frozen=True)
class Release:
    """One model in one image on one machine.

    Parameters
    ----------
    id : str
        Made of everything that the files say.
    unit, compose, user_data, install : str
    model : HostedModel
    """

    id: str
    model: HostedModel
    unit: str
    compose: str
    user_data: str
    install: str
    aws: AwsConfig
    ec2: Ec2Config
    strategy: str

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
            "MetadataOptions": {"HttpTokens": "required"},
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
    def files(self) -> dict[str, str]:
        """Every rendered file by its name."""
        return {
            "trademl.service": self.unit,
            "compose.yaml": self.compose,
            "user-data.sh": self.user_data,
            "install.sh": self.install,
        }


def plan_release(
    model: Artifact,
    aws: AwsConfig,
    hosting: HostingConfig,
    ec2: Ec2Config,
    *,
    strategy: str,
    mode: Mode = "shadow",
    endpoint: str = DEFAULT_NAME,
    root: str = ROOT,
    units: str = UNITS,
    tries: int = 60,
) -> Release:
    """Return a release of a model; nothing is sent.

    Parameters
    ----------
    mode : {"live", "shadow"}
        What its answers say of the model.
    endpoint : str
        What its callers call the strategy.
    root, units : str
        Folders of releases and of systemd's units on the machine.
    tries : int
        Seconds that the server has until it answers.

    Raises
    ------
    ConfigError
        If ``[aws]`` or ``[hosting]`` lacks something, the image is no address, or the endpoint's
        name is none that a unit can hold.
    """
    check_launchable(aws)
    check_hostable(hosting)
    if not _IMAGE.fullmatch(hosting.image):
        raise ConfigError(f"image is {hosting.image!r}, expected an address without spaces")
    if not _NAME.fullmatch(endpoint):
        raise ConfigError(f"endpoint is {endpoint!r}, expected letters, digits, - _ and .")
    hosted = hosted_model(model, aws, hosting, mode)
    given = {"model": hosted.name, "bind": ec2.bind, "port": ec2.port, "files": _templates()}
    given["endpoint"] = endpoint
    release = artifact_id("release", {}, given, code="1")
    values = {
        "release": release, "root": root, "units": units, "folder": f"{root}/releases/{release}",
        "bind": f"[{ec2.bind}]" if ":" in ec2.bind else ec2.bind, "port": str(ec2.port),
        "model": model.id, "mode": mode, "image": hosting.image, "region": aws.region,
        "uri": hosted.uri, "sha256": digest_file(hosted.archive), "tries": str(tries),
        "endpoint": endpoint, "login": _login(hosting.image), **_question(hosted),
    }  # fmt: skip
    unit, compose = _rendered("trademl.service", values), _rendered("compose.yaml", values)
    values |= {"unit_base64": _encoded(unit), "compose_base64": _encoded(compose)}
    user_data = _rendered("user-data.sh", values)
    if len(user_data.encode()) > MAX_USER_DATA_BYTES:
        raise ConfigError(f"user data has more than {MAX_USER_DATA_BYTES} bytes: EC2 refuses it")
    install = _rendered("install.sh", values)
    return Release(release, hosted, unit, compose, user_data, install, aws, ec2, strategy)


def _question(model: HostedModel) -> dict[str, str]:
    """Return the row that the machine asks itself, and the score that it must hear."""
    loaded = load_binary_model(model.archive)
    features_1D = np.asarray(loaded.mean_D, np.float32)[None]
    row = json.dumps({"instances": [{"features": features_1D[0].tolist()}]})
    return {"row": row, "score": repr(float(loaded.scores(features_1D)[0]))}


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
