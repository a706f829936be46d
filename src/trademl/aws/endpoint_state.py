"""An endpoint that stands: how it is, and its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trademl.aws.clients import client
from trademl.aws.endpoints import Sleep, find_endpoint
from trademl.aws.failures import aws_errors
from trademl.errors import CloudError
from trademl.ports import Progress, Silent

_BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")


@dataclass(frozen=True)
class EndpointState:
    """An endpoint as SageMaker describes it.

    Parameters
    ----------
    status : str
        SageMaker's word; ``none`` where there is no such endpoint.
    config : str
    variants : tuple of mapping
        Name, machines and weight of each that answers, or is sent copies.
    reason : str
        Why it failed.
    """

    endpoint: str
    status: str
    config: str = ""
    variants: tuple[Mapping[str, Any], ...] = ()
    reason: str = ""


def endpoint_state(name: str, region: str) -> EndpointState:
    """Return how an endpoint is.

    Raises
    ------
    CloudError
        If AWS refuses or cannot be reached.
    """
    return _state(name, find_endpoint(name, client("sagemaker", region)))


def end_endpoint(
    name: str,
    region: str,
    *,
    progress: Progress | None = None,
    poll_s: float = 10.0,
    sleep: Sleep = time.sleep,
) -> EndpointState:
    """Delete an endpoint and its configuration, and return what it was once it is gone.

    Models stay: they cost nothing, and another endpoint may stand on them.

    Raises
    ------
    CloudError
        If there is no such endpoint, or it is being changed, or AWS refuses.
    """
    progress = progress or Silent()
    sagemaker = client("sagemaker", region)
    before = _state(name, find_endpoint(name, sagemaker))
    if before.status == "none":
        raise CloudError(f"there is no endpoint {name} in {region}: nothing to stop")
    if before.status in _BUSY:
        raise CloudError(f"endpoint {name} is {before.status}: wait for its end, then stop it")
    progress.step("delete", name)
    with aws_errors(f"deleting endpoint {name}"):
        sagemaker.delete_endpoint(EndpointName=name)
        while find_endpoint(name, sagemaker) is not None:
            sleep(poll_s)
        sagemaker.delete_endpoint_config(EndpointConfigName=before.config)
    progress.done()
    return before


def _state(name: str, found: Mapping[str, Any] | None) -> EndpointState:
    if found is None:
        return EndpointState(name, "none")
    running = [*found.get("ProductionVariants", []), *found.get("ShadowProductionVariants", [])]
    variants = tuple(
        {
            "name": variant["VariantName"],
            "instances": variant.get("CurrentInstanceCount"),
            "weight": variant.get("CurrentWeight"),
        }
        for variant in running
    )
    reason = " ".join(str(found.get("FailureReason", "")).split())
    return EndpointState(
        name, found["EndpointStatus"], found["EndpointConfigName"], variants, reason
    )
