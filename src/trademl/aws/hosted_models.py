"""What SageMaker holds as one model: a model's archive, or a prefix below which several lie.

Names are made of what they stand for, so that two different ones never share a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trademl.aws.settings import AwsConfig
from trademl.serve.served import Mode
from trademl.serve.serving_folder import model_files
from trademl.serve.strategies import ServedStrategy
from trademl.store.identity import artifact_id

MAX_TAG = 256


@dataclass(frozen=True)
class HostedModel:
    """A model as SageMaker holds it: its archive in S3, an image, and a name made of both.

    Parameters
    ----------
    artifact_id : str
    archive : Path
        Here; it is sent to ``uri``.
    name, uri, image : str
    mode : {"live", "shadow"}
        What its answers say of it.
    workers : int
        Processes of its container.
    strategy : ServedStrategy, optional
        What the archive is the serving folder of; it holds the bare model where there is none.
    """

    artifact_id: str
    archive: Path
    name: str
    uri: str
    image: str
    mode: Mode
    workers: int = 1
    strategy: ServedStrategy | None = None

    target = ""  # it is the only one that can be asked
    is_shared = False

    @property
    def files(self) -> dict[str, Path]:
        """The archives of the models that may answer, by id, biggest first."""
        if self.strategy is None:
            return {self.artifact_id: self.archive}
        return {model.id: Path(model.location) for model in model_files(self.strategy)}

    @property
    def called(self) -> str:
        """What its score is kept under."""
        return self.artifact_id

    @property
    def asked(self) -> tuple[HostedModel, ...]:
        """What must be asked before the endpoint is known to work."""
        return (self,)

    @property
    def folder(self) -> str:
        """Address below which what is sent lies."""
        return self.uri.rpartition("/")[0]

    @property
    def sent(self) -> dict[str, Path]:
        """What is sent, by its name below the folder."""
        return {self.archive.name: self.archive}

    @property
    def container(self) -> dict[str, Any]:
        """The ``ContainerDefinition``."""
        environment = {"TRADEML_MODEL_ID": self.artifact_id, "TRADEML_MODEL_MODE": self.mode}
        return _container(self.image, self.uri, self.workers, environment)

    @property
    def about(self) -> dict[str, str]:
        """Its tags."""
        return {"trademl:model": self.artifact_id}


@dataclass(frozen=True)
class HostedArchive:
    """One strategy of a multi-model endpoint: the archive of its serving folder.

    Parameters
    ----------
    sha256 : str
        Of the archive, from its manifest.
    """

    strategy: ServedStrategy
    archive: Path
    sha256: str

    @property
    def target(self) -> str:
        """What callers name it, as ``TargetModel``."""
        return f"{self.strategy.name}.tar.gz"

    @property
    def called(self) -> str:
        """What its score is kept under."""
        return self.strategy.name

    @property
    def artifact_id(self) -> str:
        """The model that answers."""
        return self.strategy.ladder[self.strategy.followed].id

    @property
    def files(self) -> dict[str, Path]:
        """The archive of the model that answers, by its id."""
        return {model.id: Path(model.location) for model in model_files(self.strategy)}


@dataclass(frozen=True)
class SharedModel:
    """A multi-model endpoint's model as SageMaker holds it: all archives below one prefix.

    Parameters
    ----------
    release : str
        Made of the archives and what they are called: another archive lies below another prefix.
    uri : str
        The prefix, with a slash at its end.
    """

    release: str
    archives: tuple[HostedArchive, ...]
    name: str
    uri: str
    image: str
    workers: int = 1

    is_shared = True

    @property
    def artifact_id(self) -> str:
        """The release."""
        return self.release

    @property
    def asked(self) -> tuple[HostedArchive, ...]:
        """What must be asked before the endpoint is known to work."""
        return self.archives

    @property
    def folder(self) -> str:
        """Address below which what is sent lies."""
        return self.uri.rstrip("/")

    @property
    def sent(self) -> dict[str, Path]:
        """What is sent, by its name below the folder."""
        return {one.target: one.archive for one in self.archives}

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each archive, by its name below the folder."""
        return {one.target: one.sha256 for one in self.archives}

    @property
    def container(self) -> dict[str, Any]:
        """The ``ContainerDefinition``."""
        found = _container(self.image, self.uri, self.workers, {})
        return {
            **found,
            "Mode": "MultiModel",
            "MultiModelConfig": {"ModelCacheSetting": "Enabled"},
        }

    @property
    def about(self) -> dict[str, str]:
        """Its tags."""
        return {"trademl:release": self.release}


def model_request(
    model: HostedModel | SharedModel, aws: AwsConfig, strategy: str
) -> dict[str, Any]:
    """Return the request of ``CreateModel``."""
    found: dict[str, Any] = {
        "ModelName": model.name,
        "PrimaryContainer": model.container,
        "ExecutionRoleArn": aws.role_arn,
        "EnableNetworkIsolation": aws.network_isolation,
        "Tags": tags(aws, model, strategy),
    }
    if aws.subnets:
        found["VpcConfig"] = {
            "Subnets": list(aws.subnets),
            "SecurityGroupIds": list(aws.security_groups),
        }
    return found


def tags(aws: AwsConfig, model: HostedModel | SharedModel, strategy: str) -> list[dict[str, str]]:
    """Return the tags of whatever belongs to a model."""
    own = {**model.about, "trademl:strategy": strategy[:MAX_TAG] or "-"}
    return [{"Key": key, "Value": value} for key, value in {**own, **(aws.tags or {})}.items()]


def sagemaker_name(kind: str, given: Mapping[str, Any]) -> str:
    """Return a name that SageMaker takes, made of what it stands for."""
    return f"trademl-{artifact_id(kind, {}, given, code='1')}"


def _container(image: str, uri: str, workers: int, environment: dict[str, str]) -> dict[str, Any]:
    if workers > 1:
        environment = {**environment, "SAGEMAKER_MODEL_SERVER_WORKERS": str(workers)}
    found: dict[str, Any] = {"Image": image, "ModelDataUrl": uri}
    return {**found, "Environment": environment} if environment else found
