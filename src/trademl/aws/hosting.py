"""The ``[hosting]`` section of a strategy file: the image, the machines and how traffic moves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from trademl.errors import ConfigError

Routing = Literal["all_at_once", "canary", "linear"]

_RANGES: tuple[tuple[str, int, int], ...] = (
    ("instance_count", 1, 100),
    ("wait_s", 0, 3600),
    ("termination_wait_s", 0, 3600),
    ("max_update_s", 600, 28_800),
    ("startup_timeout_s", 60, 3600),
    ("max_payload_mb", 1, 100),
    ("max_concurrent", 1, 100),
    ("workers", 1, 256),
    ("capture_percent", 0, 100),
)


@dataclass(frozen=True)
class HostingConfig:
    """How a model is hosted on SageMaker; region, role, bucket and network are those of ``[aws]``.

    Parameters
    ----------
    image : str
        The serving image in ECR, with its tag, or better its digest.
    endpoint : str
        Name of the endpoint; ``trademl-`` and the strategy's name where empty.
    instance_type, instance_count
        The machines of the endpoint, or of a transform job.
    routing : {"canary", "linear", "all_at_once"}
        How traffic moves to the new machines when an endpoint is updated.
    step_percent : int
        Of a canary, up to 50; of each linear step, 10 to 50.
    wait_s, termination_wait_s, max_update_s : int
        Seconds between steps, before the old machines go, and of the whole update.
    startup_timeout_s : int
        How long the container has until it answers ``/ping``.
    alarms : tuple of str
        CloudWatch alarms, up to 10, any of which takes an update back.
    shadow_percent : int
        Share of requests that a shadow variant is sent too.
    max_payload_mb, max_concurrent : int
        Of a transform job: MiB in one request, and requests at once; 100 MiB together.
    max_runtime_s : int
        Of a transform job; the worst case of its cost rests on it.
    workers : int
        Processes of a container, each with all of the model.
    capture_percent : int
        Share of an endpoint's requests that SageMaker keeps with their answers; 0 keeps none.
    """

    image: str = ""
    endpoint: str = ""
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    routing: Routing = "canary"
    step_percent: int = 10
    wait_s: int = 300
    termination_wait_s: int = 300
    max_update_s: int = 3600
    startup_timeout_s: int = 300
    alarms: tuple[str, ...] = ()
    shadow_percent: int = 100
    max_payload_mb: int = 6
    max_concurrent: int = 4
    max_runtime_s: int = 3600
    workers: int = 1
    capture_percent: int = 0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected from {low} to {high}")
        low = 10 if self.routing == "linear" else 1
        if not low <= self.step_percent <= 50:
            raise ConfigError(f"step_percent is {self.step_percent}, expected from {low} to 50")
        if not 1 <= self.shadow_percent <= 100:
            raise ConfigError(f"shadow_percent is {self.shadow_percent}, expected from 1 to 100")
        if len(self.alarms) > 10:
            raise ConfigError(f"{len(self.alarms)} alarms, SageMaker watches up to 10")
        if self.max_payload_mb * self.max_concurrent > 100:
            raise ConfigError(
                f"max_payload_mb x max_concurrent is {self.max_payload_mb * self.max_concurrent}, "
                "SageMaker takes up to 100"
            )
        if not re.fullmatch(r"ml\.[a-z0-9\-]+\.[a-z0-9]+", self.instance_type):
            raise ConfigError(f"instance_type is {self.instance_type!r}, expected ml.m5.large")


def check_hostable(config: HostingConfig) -> None:
    """Refuse a section without an image.

    Raises
    ------
    ConfigError
        AWS's own Linear Learner cannot serve a model of trademl, so there is no default.
    """
    if not config.image:
        raise ConfigError(
            "[hosting] lacks image: build docker/serve.Dockerfile, push it to ECR, and set "
            "hosting.image, or TRADEML_HOSTING__IMAGE"
        )


def capture_config(config: HostingConfig, uri: str, kms_key: str) -> dict[str, Any]:
    """Return the ``DataCaptureConfig`` of an endpoint, below an address in S3."""
    found: dict[str, Any] = {
        "EnableCapture": True,
        "InitialSamplingPercentage": config.capture_percent,
        "DestinationS3Uri": uri,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {
            "CsvContentTypes": ["text/csv"],
            "JsonContentTypes": ["application/json", "application/jsonlines"],
        },
    }
    return {**found, "KmsKeyId": kms_key} if kms_key else found


def deployment_config(config: HostingConfig) -> dict[str, Any]:
    """Return the ``DeploymentConfig`` of an update: blue-green, and taken back on an alarm."""
    routing: dict[str, Any] = {"Type": config.routing.upper()}
    step = {"Type": "CAPACITY_PERCENT", "Value": config.step_percent}
    routing["WaitIntervalInSeconds"] = config.wait_s
    if config.routing == "canary":
        routing["CanarySize"] = step
    elif config.routing == "linear":
        routing["LinearStepSize"] = step
    found: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": config.termination_wait_s,
            "MaximumExecutionTimeoutInSeconds": config.max_update_s,
        }
    }
    if config.alarms:
        found["AutoRollbackConfiguration"] = {
            "Alarms": [{"AlarmName": name} for name in config.alarms]
        }
    return found
