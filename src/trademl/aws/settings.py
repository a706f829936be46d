"""The ``[aws]`` section of a strategy file: where jobs run, on what, and what they may cost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from trademl.errors import ConfigError

InputMode = Literal["File", "FastFile", "Pipe"]

MAX_RUNTIME_S = 28 * 24 * 3600  # the longest that SageMaker lets a training job run
_PATTERNS = {
    "region": (r"[a-z]{2}(-[a-z]+)+-\d", "a region such as eu-west-2"),
    "role_arn": (
        r"arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
        "arn:aws:iam::<12 digits>:role/<name>",
    ),
    "bucket": (
        r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]",
        "the name of a bucket, 3 to 63 small letters, digits, dots and hyphens, without s3://",
    ),
    "prefix": (r"[A-Za-z0-9!_.*'()\-/]*", "the first part of keys, such as trademl"),
    "instance_type": (r"ml\.[a-z0-9\-]+\.[a-z0-9]+", "a type such as ml.m5.large"),
    "image": (r"[^\s]{1,255}", "the address of an image in ECR, with its tag or digest"),
}
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("instance_count", 1, 100),
    ("volume_gb", 1, 16_384),
    ("max_runtime_s", 1, MAX_RUNTIME_S),
    ("poll_s", 0.01, 3600),
)


@dataclass(frozen=True)
class AwsConfig:
    """How jobs run on SageMaker.

    Parameters
    ----------
    region, role_arn, bucket : str
        Needed by every job: where it runs, the role that SageMaker takes on, and the bucket, in
        the same region, that holds data, models and checkpoints.
    prefix : str
        What every key in the bucket begins with.
    image : str
        An image of your own with a ``train`` entry point; AWS's Linear Learner where empty.
    instance_type, instance_count, volume_gb
        The machines of one training job.
    max_runtime_s : int
        SageMaker stops a training job that runs longer; the worst case of a cost rests on it.
    input_mode : {"File", "FastFile", "Pipe"}
        How channels reach the container; Linear Learner takes File and Pipe.
    spot : bool
        Run on spare capacity, with checkpoints.
    max_wait_s : int, optional
        Of spot jobs: runtime and waiting together; twice ``max_runtime_s`` by default.
    subnets, security_groups : tuple of str
        Of a VPC; both or neither.
    output_kms_key, volume_kms_key : str
        Keys for what lies in S3 and on the volumes; those of the account where empty.
    network_isolation, encrypt_between_hosts : bool
    tags : dict of str to str, optional
        Put on every job besides ``trademl:study`` and ``trademl:strategy``.
    max_cost_usd : float, optional
        Refuse a job whose worst case is above it; ``--max-cost`` comes first.
    poll_s : float
        Seconds between two looks at a running job.
    """

    region: str = ""
    role_arn: str = ""
    bucket: str = ""
    prefix: str = "trademl"
    image: str = ""
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    volume_gb: int = 10
    max_runtime_s: int = 3600
    input_mode: InputMode = "File"
    spot: bool = False
    max_wait_s: int | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    output_kms_key: str = ""
    volume_kms_key: str = ""
    network_isolation: bool = False
    encrypt_between_hosts: bool = False
    tags: dict[str, str] | None = None
    max_cost_usd: float | None = None
    poll_s: float = 15.0

    def __post_init__(self) -> None:
        for name, (pattern, expected) in _PATTERNS.items():
            value = getattr(self, name)
            if value and not re.fullmatch(pattern, value):
                raise ConfigError(f"{name} is {value!r}, expected {expected}")
        if not self.instance_type:
            raise ConfigError("instance_type is empty, expected a type such as ml.m5.large")
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected from {low} to {high}")
        self._check_together()

    def _check_together(self) -> None:
        if self.max_wait_s is not None and not self.spot:
            raise ConfigError("max_wait_s is for spot jobs only: set spot = true, or leave it out")
        if not self.max_runtime_s <= self.wait_limit_s <= MAX_RUNTIME_S:
            raise ConfigError(
                f"max_wait_s is {self.max_wait_s}, expected from max_runtime_s "
                f"({self.max_runtime_s}) to {MAX_RUNTIME_S}"
            )
        if bool(self.subnets) != bool(self.security_groups):
            raise ConfigError("subnets and security_groups go together: set both, or neither")
        if self.max_cost_usd is not None and self.max_cost_usd <= 0:
            raise ConfigError(f"max_cost_usd is {self.max_cost_usd:g}, expected more than 0")

    @property
    def wait_limit_s(self) -> int:
        """Seconds of running and waiting for capacity together."""
        return self.max_wait_s or min(2 * self.max_runtime_s, MAX_RUNTIME_S)

    @property
    def is_linear_learner(self) -> bool:
        """Whether jobs run in AWS's own image."""
        return not self.image

    def uri(self, *parts: str) -> str:
        """Return ``s3://bucket/prefix/part/part``."""
        return "/".join([f"s3://{self.bucket}", *filter(None, [self.prefix.strip("/")]), *parts])


def check_launchable(config: AwsConfig) -> None:
    """Refuse a section that lacks what every job needs.

    Raises
    ------
    ConfigError
        The message names every missing key.
    """
    missing = [name for name in ("region", "role_arn", "bucket") if not getattr(config, name)]
    if missing:
        raise ConfigError(
            f"[aws] lacks {', '.join(missing)}: set it in the strategy file, or as "
            f"TRADEML_AWS__{missing[0].upper()}"
        )
    if config.is_linear_learner and config.input_mode == "FastFile":
        raise ConfigError("input_mode is FastFile, Linear Learner takes File and Pipe: choose one")
