"""boto3's clients for one region, made when the first of them is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trademl.aws.failures import aws_errors
from trademl.errors import require_extra

PRICING_REGION = "us-east-1"  # the Price List answers from few regions, about all of them


@dataclass(frozen=True)
class Clients:
    """What a job needs: the service itself, its bucket, and the figures that it logs."""

    region: str
    sagemaker: Any
    s3: Any
    cloudwatch: Any


def open_clients(region: str) -> Clients:
    """Return the clients of a region.

    boto3 reads credentials, profile and endpoints the way that every AWS tool does.

    Raises
    ------
    MissingExtraError
        If boto3 is not installed.
    CloudError
        If the profile is not known.
    """
    names = ("sagemaker", "s3", "cloudwatch")
    return Clients(region, **{name: client(name, region) for name in names})


def client(service: str, region: str) -> Any:
    """Return one client that tries again as ``AWS_MAX_ATTEMPTS`` says, three times by default."""
    require_extra("aws")
    import boto3
    from botocore.config import Config

    with aws_errors(f"opening {service} in {region}"):
        return boto3.session.Session(region_name=region).client(
            service,
            config=Config(
                retries={"mode": "standard"}, connect_timeout=10, user_agent_extra="trademl"
            ),
        )
