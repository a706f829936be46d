"""The ``[ec2]`` section of a strategy file: which machine serves, and how one is launched."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from trademl.errors import ConfigError
from trademl.serve.command import ServeOptions

# Amazon Linux 2023, always the newest: EC2 looks the parameter up when it launches.
NEWEST_LINUX = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"

_PARAMETER = re.compile(r"[A-Za-z0-9_.\-/:]{1,1011}")
# Characters that systemd, Compose and a shell read as themselves.
_PLACE = re.compile(r"s3://[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9](/[A-Za-z0-9._=/\-]*)?")


@dataclass(frozen=True)
class Ec2Config:
    """How a model is served on EC2; the image is that of ``[hosting]``, the region of ``[aws]``.

    Parameters
    ----------
    name : str
        Value of the tag ``trademl`` of the machines; ``instance_id`` comes first.
    instance_id : str
    bind, port
        Where the machine answers; only itself by default.
    token_parameter : str
        Name of a SecureString of SSM's parameter store that holds the lines of a token file. The
        machine reads it itself.
    open : bool
        Anyone who reaches the address may ask, without a token.
    ami, instance_type, instance_profile, subnet, security_groups, volume_gb
        Of a machine that is launched. The profile needs AmazonSSMManagedInstanceCore, reading of
        the bucket and of ECR.
    usd_per_hour : float, optional
        Price of the machine, to be shown; the bundled table holds machines of SageMaker only.
    timeout_s : int
        Of one command over SSM.
    serve : ServeOptions
        What the server in the container is told; it captures to S3 alone, for its container has no
        folder of its own.
    """

    name: str = "serving"
    instance_id: str = ""
    bind: str = "127.0.0.1"
    port: int = 8080
    ami: str = NEWEST_LINUX
    instance_type: str = "m7i.large"
    instance_profile: str = ""
    subnet: str = ""
    security_groups: tuple[str, ...] = ()
    volume_gb: int = 20
    usd_per_hour: float | None = None
    timeout_s: int = 900
    token_parameter: str = ""
    open: bool = False
    serve: ServeOptions = field(default_factory=ServeOptions)

    def __post_init__(self) -> None:
        try:
            address = ipaddress.ip_address(self.bind)
        except ValueError as error:
            raise ConfigError(f"bind is {self.bind!r}, expected an address") from error
        if self.token_parameter and not _PARAMETER.fullmatch(self.token_parameter):
            raise ConfigError(
                f"token_parameter is {self.token_parameter!r}, expected the name of a parameter of "
                "SSM, such as /trademl/tokens"
            )
        if not (address.is_loopback or self.token_parameter or self.open):
            raise ConfigError(
                f"bind is {self.bind}, which others can reach: set token_parameter to a "
                "SecureString of SSM with lines such as 'predict TOKEN', or open = true"
            )
        if not re.fullmatch(r"[A-Za-z0-9_.\-]{1,128}", self.name):
            raise ConfigError(f"name is {self.name!r}, expected letters, digits, - _ and .")
        for what, low, high in (
            ("port", 1, 65_535),
            ("volume_gb", 8, 16_384),
            ("timeout_s", 30, 172_800),
        ):
            if not low <= getattr(self, what) <= high:
                raise ConfigError(f"{what} is {getattr(self, what)}, expected from {low} to {high}")
        if self.serve.capture is not None and not _PLACE.fullmatch(self.serve.capture):
            raise ConfigError(
                f"capture is {self.serve.capture!r}: a container on EC2 keeps no folder, expected "
                "s3://bucket/prefix of letters, digits and . _ = / -"
            )

    @property
    def own_url(self) -> str:
        """Where the machine itself reaches its server."""
        address = ipaddress.ip_address(self.bind)
        host = self.bind
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def check_launch(config: Ec2Config) -> None:
    """Refuse to launch a machine that could not be reached over SSM.

    Raises
    ------
    ConfigError
        If there is no instance profile.
    """
    if not config.instance_profile:
        raise ConfigError(
            "[ec2] lacks instance_profile: a machine without one cannot be told anything over SSM"
        )
