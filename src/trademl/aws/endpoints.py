"""An endpoint on SageMaker: made or updated, looked at, asked, and taken back where it fails.

What runs in the end is what SageMaker describes, not what was asked for: the configuration, each
variant's machines and weight, the digest of its image and the address of its model are compared,
below the prefix of a multi-model endpoint the digest of every archive, and one prediction of each
model is held against the score of the same model here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trademl.aws.clients import client
from trademl.aws.endpoint_plan import EndpointPlan
from trademl.aws.endpoint_smoke import smoke_predictions
from trademl.aws.failures import aws_errors, code_of, is_not_found
from trademl.aws.hosted_models import SharedModel
from trademl.aws.upload import check_uploaded, upload_files
from trademl.errors import CloudError
from trademl.ports import Progress, Silent

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class EndpointClients:
    """What an endpoint needs of boto3."""

    sagemaker: Any
    runtime: Any
    s3: Any
    cloudwatch: Any


@dataclass(frozen=True)
class DeployedEndpoint:
    """What stands, as SageMaker describes it.

    Parameters
    ----------
    scores : mapping of str to float
        Of the smoke predictions: by strategy of a multi-model endpoint, else by model.
    """

    endpoint: str
    config: str
    change: str
    variants: tuple[Mapping[str, Any], ...]
    scores: Mapping[str, float]

    @property
    def score(self) -> float:
        """That of the only model, or of the first."""
        return next(iter(self.scores.values()))


@dataclass
class _Made:
    """What this command has made, to be unmade where it fails; newest last."""

    undo: list[tuple[str, Callable[[], None]]] = field(default_factory=list)

    def __call__(self, what: str, undo: Callable[[], None]) -> None:
        self.undo.append((what, undo))


def open_endpoint_clients(region: str) -> EndpointClients:
    """Return the clients of a region; see `trademl.aws.clients.client`."""
    names = ("sagemaker", "sagemaker-runtime", "s3", "cloudwatch")
    return EndpointClients(*(client(name, region) for name in names))


def deploy_endpoint(
    plan: EndpointPlan,
    *,
    clients: EndpointClients | None = None,
    progress: Progress | None = None,
    sleep: Sleep = time.sleep,
) -> DeployedEndpoint:
    """Make or update an endpoint and return what runs there.

    Where anything goes wrong, what this call has made is unmade: a new endpoint is deleted, an
    updated one goes back to the configuration that it had, and new configurations and models go.
    An interruption leaves SageMaker at work; the same command comes back to it.

    Raises
    ------
    CloudError
        If AWS refuses, the endpoint does not come up, SageMaker took the update back, something
        else runs than was asked for, or its prediction is not the model's.
    """
    progress = progress or Silent()
    clients = clients or open_endpoint_clients(plan.aws.region)
    _check_alarms(plan, clients)
    before = find_endpoint(plan.endpoint, clients.sagemaker)
    _check_state(plan, before)
    _check_kind(plan, before, clients.sagemaker)
    made = _Made()
    try:
        change = _apply(plan, clients, before, made, progress, sleep)
        variants = check_running(plan, clients)
        _check_archives(plan, clients)
        scores = smoke_predictions(plan, clients.runtime, sleep)
    except CloudError as error:
        left = _unmake(made, progress)
        raise CloudError(f"{error}; {left}") from error
    return DeployedEndpoint(plan.endpoint, plan.config_name, change, variants, scores)


def find_endpoint(name: str, sagemaker: Any) -> dict[str, Any] | None:
    """Return the description of an endpoint, or None where there is none."""
    return _find(sagemaker, "endpoint", EndpointName=name)


def _apply(
    plan: EndpointPlan,
    clients: EndpointClients,
    before: Mapping[str, Any] | None,
    made: _Made,
    progress: Progress,
    sleep: Sleep,
) -> str:
    """Bring the endpoint to the plan's configuration; return what that took."""
    if before and before["EndpointConfigName"] == plan.config_name and _is_up(before):
        return "unchanged"
    _make_parts(plan, clients, made, progress)
    sagemaker, name = clients.sagemaker, plan.endpoint
    progress.step("endpoint", name)
    if before is None:
        with aws_errors(f"making endpoint {name}"):
            sagemaker.create_endpoint(**plan.create_request)
        made(f"endpoint {name}", lambda: _delete_endpoint(name, sagemaker, plan, sleep))
        change = "created"
    elif _is_up(before):
        with aws_errors(f"updating endpoint {name}"):
            sagemaker.update_endpoint(**plan.update_request)
        old = before["EndpointConfigName"]
        made(f"the update of {name}", lambda: _go_back(name, old, sagemaker, plan, sleep))
        change = "updated"
    else:  # an earlier command of the same plan was interrupted
        change = "taken up"
    _wait_until_up(plan, sagemaker, sleep)
    progress.done(change)
    return change


def _make_parts(
    plan: EndpointPlan, clients: EndpointClients, made: _Made, progress: Progress
) -> None:
    """Bring archives, models and the configuration that are not there yet."""
    sagemaker = clients.sagemaker
    for model in plan.models:
        upload_files(model.sent, model.folder, plan.aws, clients.s3, progress)
        name = model.name
        if _find(sagemaker, "model", ModelName=name) is None:
            with aws_errors(f"making model {name}"):
                sagemaker.create_model(**plan.model_request(model))
            made(f"model {name}", lambda n=name: sagemaker.delete_model(ModelName=n))  # type: ignore[misc]
    name = plan.config_name
    if _find(sagemaker, "endpoint_config", EndpointConfigName=name) is None:
        with aws_errors(f"making endpoint configuration {name}"):
            sagemaker.create_endpoint_config(**plan.config_request)
        made(
            f"configuration {name}",
            lambda: sagemaker.delete_endpoint_config(EndpointConfigName=name),
        )


def _wait_until_up(plan: EndpointPlan, sagemaker: Any, sleep: Sleep) -> None:
    """Return when the endpoint stands on the plan's configuration."""
    while True:
        found = find_endpoint(plan.endpoint, sagemaker)
        if found is None:
            raise CloudError(f"endpoint {plan.endpoint} is gone: someone else has deleted it")
        status = found["EndpointStatus"]
        if status in ("Creating", "Updating", "SystemUpdating", "RollingBack"):
            sleep(plan.aws.poll_s)
            continue
        reason = " ".join(str(found.get("FailureReason", "no reason given")).split())
        if not _is_up(found):
            raise CloudError(f"endpoint {plan.endpoint} ended as {status}: {reason}")
        if found["EndpointConfigName"] != plan.config_name:
            raise CloudError(
                f"SageMaker took the update of {plan.endpoint} back to "
                f"{found['EndpointConfigName']}: {reason}"
            )
        return


def check_running(plan: EndpointPlan, clients: EndpointClients) -> tuple[Mapping[str, Any], ...]:
    """Return the variants that run, if they are those of the plan.

    Raises
    ------
    CloudError
        The message names what differs.
    """
    found = find_endpoint(plan.endpoint, clients.sagemaker) or {}
    running = [*found.get("ProductionVariants", []), *found.get("ShadowProductionVariants", [])]
    by_name = {variant["VariantName"]: variant for variant in running}
    asked = plan.config_request
    wanted = [*asked["ProductionVariants"], *asked.get("ShadowProductionVariants", [])]
    _same("configuration", found.get("EndpointConfigName"), plan.config_name)
    _same("set of variants", sorted(by_name), sorted(v["VariantName"] for v in wanted))
    variants = []
    for variant, model in zip(wanted, plan.models, strict=True):
        name = variant["VariantName"]
        runs = by_name[name]
        weight = float(np.float32(variant["InitialVariantWeight"]))  # as the API keeps it
        found_weight = float(np.float32(runs.get("CurrentWeight", np.nan)))
        _same(f"weight of {name}", found_weight, weight)
        _same(
            f"number of machines of {name}",
            runs.get("CurrentInstanceCount"),
            variant["InitialInstanceCount"],
        )
        image = _check_image(name, runs, model.image)
        described = _find(clients.sagemaker, "model", ModelName=model.name) or {}
        container = described.get("PrimaryContainer", {})
        _same(f"model data of {name}", container.get("ModelDataUrl"), model.uri)
        _same(f"kind of model of {name}", _is_shared(container), model.is_shared)
        variants.append(
            {"name": name, "model": model.artifact_id, "model_arn": described.get("ModelArn"),
             "image": image, "weight": runs.get("CurrentWeight"),
             "instances": runs.get("CurrentInstanceCount")}
        )  # fmt: skip
    return tuple(variants)


def _check_archives(plan: EndpointPlan, clients: EndpointClients) -> None:
    """Refuse a prefix that holds another archive than was sent, or one more: it could be asked."""
    for model in plan.models:
        if isinstance(model, SharedModel):
            check_uploaded(model.digests, model.folder, plan.aws, clients.s3)


def _check_image(name: str, runs: Mapping[str, Any], image: str) -> str:
    """Return the image that a variant runs, with the digest that its tag stood for."""
    deployed = runs.get("DeployedImages", [])
    _same(f"image of {name}", [one.get("SpecifiedImage") for one in deployed], [image])
    resolved = str(deployed[0].get("ResolvedImage", image))
    if "@sha256:" in image:
        _same(f"digest of {name}", resolved.rpartition("@")[2], image.rpartition("@")[2])
    return resolved


def _check_state(plan: EndpointPlan, before: Mapping[str, Any] | None) -> None:
    """Refuse an endpoint that someone else is changing, or that has failed."""
    if before is None or _is_up(before):
        return
    pending = before.get("PendingDeploymentSummary", {}).get("EndpointConfigName")
    is_coming = before["EndpointStatus"] in ("Creating", "Updating")
    if is_coming and plan.config_name in (pending, before["EndpointConfigName"]):
        return
    raise CloudError(
        f"endpoint {plan.endpoint} is {before['EndpointStatus']}, expected InService: wait for its "
        "change to end; one that has failed is deleted with aws sagemaker delete-endpoint"
    )


def _check_kind(plan: EndpointPlan, before: Mapping[str, Any] | None, sagemaker: Any) -> None:
    """Refuse to put several models where callers name none, or one where they name theirs."""
    if before is None or before["EndpointConfigName"] == plan.config_name:
        return
    name = before["EndpointConfigName"]
    config = _find(sagemaker, "endpoint_config", EndpointConfigName=name) or {}
    models = [variant["ModelName"] for variant in config.get("ProductionVariants", [])]
    found = [_find(sagemaker, "model", ModelName=model) or {} for model in models]
    is_shared = any(_is_shared(model.get("PrimaryContainer", {})) for model in found)
    if is_shared == plan.answering.is_shared or not any(found):  # deleted behind its back
        return
    kinds = {True: "a multi-model endpoint", False: "an endpoint of one model"}
    says = {True: "name their model", False: "name no model"}
    raise CloudError(
        f"endpoint {plan.endpoint} is {kinds[is_shared]}, whose callers {says[is_shared]}: set "
        f"another hosting.endpoint for {kinds[not is_shared]}, or delete that one first"
    )


def _is_shared(container: Mapping[str, Any]) -> bool:
    return bool(container.get("Mode") == "MultiModel")


def _check_alarms(plan: EndpointPlan, clients: EndpointClients) -> None:
    """Refuse alarms that do not exist: an update that none of them could take back."""
    if not (wanted := plan.hosting.alarms):
        return
    with aws_errors("looking for alarms"):
        answer = clients.cloudwatch.describe_alarms(AlarmNames=list(wanted))
    found = {
        alarm["AlarmName"]: alarm.get("StateValue")
        for kind in ("MetricAlarms", "CompositeAlarms")
        for alarm in answer.get(kind, [])
    }
    if missing := [name for name in wanted if name not in found]:
        raise CloudError(
            f"there is no alarm {missing[0]} in {plan.aws.region}: make it, or correct "
            "hosting.alarms"
        )
    if loud := [name for name in wanted if found[name] == "ALARM"]:
        raise CloudError(f"alarm {loud[0]} is on already: an update would be taken back at once")


def _is_up(described: Mapping[str, Any]) -> bool:
    return bool(described["EndpointStatus"] == "InService")


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise CloudError(f"another {what} runs than was asked for: {found}, expected {expected}")


def _find(sagemaker: Any, what: str, **name: str) -> dict[str, Any] | None:
    """Return a description, or None where there is nothing of the name."""
    from botocore.exceptions import ClientError

    with aws_errors(f"looking for {what} {next(iter(name.values()))}"):
        try:
            found: dict[str, Any] = getattr(sagemaker, f"describe_{what}")(**name)
        except ClientError as error:
            if is_not_found(error) or code_of(error) == "ResourceNotFound":
                return None
            raise
    return found


def _delete_endpoint(name: str, sagemaker: Any, plan: EndpointPlan, sleep: Sleep) -> None:
    sagemaker.delete_endpoint(EndpointName=name)
    while find_endpoint(name, sagemaker) is not None:
        sleep(plan.aws.poll_s)


def _go_back(name: str, config: str, sagemaker: Any, plan: EndpointPlan, sleep: Sleep) -> None:
    """Put the old configuration back, all at once, unless SageMaker has done so itself."""
    found = find_endpoint(name, sagemaker) or {}
    if found.get("EndpointConfigName") == config and _is_up(found):
        return
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
    while (find_endpoint(name, sagemaker) or {}).get("EndpointStatus") == "Updating":
        sleep(plan.aws.poll_s)


def _unmake(made: _Made, progress: Progress) -> str:
    """Unmake everything, newest first; return in words what became of it."""
    if not made.undo:
        return "nothing was changed"
    progress.step("roll back", f"{len(made.undo)} things")
    left = []
    for what, undo in reversed(made.undo):
        try:
            with aws_errors(f"taking back {what}"):
                undo()
        except CloudError as error:
            left.append(f"{what} ({error})")
    progress.done()
    if left:
        return f"these could not be taken back: {'; '.join(left)}"
    return "everything that this command had made was taken back"
