"""Models of a workspace put on SageMaker or EC2, and what the ledger keeps of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from trademl.aws.ec2 import DeployedRelease, deploy_release
from trademl.aws.ec2_release import Release, plan_release
from trademl.aws.ec2_settings import Ec2Config, check_launch
from trademl.aws.endpoint_plan import EndpointPlan, plan_endpoint
from trademl.aws.endpoint_state import EndpointState, end_endpoint, endpoint_state
from trademl.aws.endpoints import DeployedEndpoint, Sleep, deploy_endpoint
from trademl.aws.hosting import HostingConfig, check_hostable
from trademl.aws.invoking import predict_on_endpoint
from trademl.aws.settings import AwsConfig, check_launchable
from trademl.errors import ConfigError, ServeError
from trademl.ledger import Ledger
from trademl.ports import Progress
from trademl.serve.deployments import (
    current_deployment,
    deploy,
    replace_below,
    retire,
    standing_below,
)
from trademl.serve.formats import RECORDIO
from trademl.serve.questions import Floats, Predictions
from trademl.serve.served import Mode
from trademl.serve.serving_artifact import serving_artifact
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.train.proof import check_proof
from trademl.train.registry import strategies_of


def plan_hosting(
    model: Artifact,
    aws: AwsConfig,
    hosting: HostingConfig,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    strategy: str,
    describe: Callable[[Artifact, Mode], ServedStrategy] | None = None,
) -> EndpointPlan:
    """Return the plan of a model's endpoint: a champion answers, any other model is a shadow.

    Parameters
    ----------
    describe : callable, optional
        Returns the ladder and the rules that a model is served with, in a mode; it is hosted bare
        without.

    Raises
    ------
    ConfigError
        If ``[aws]`` or ``[hosting]`` lacks something, or there is nothing to shadow.
    DataError
        If the model's dataset was not proven free of look-ahead.
    """
    check_proof(model, store, ledger)
    mode: Mode = "live" if strategies_of(ledger, model.id) else "shadow"
    live = None
    if mode == "shadow":
        try:
            standing = current_deployment(_place(aws, hosting, strategy), ledger)
        except ServeError:
            standing = None
        if standing is not None and standing.mode == "live":
            live = store.get(standing.model_id)

    def folder(hosted: Artifact, mode: Mode) -> tuple[ServedStrategy, Artifact]:
        assert describe is not None  # noqa: S101  (it is called where there is one)
        served = describe(hosted, mode)
        return served, serving_artifact([served], store)

    return plan_endpoint(
        model,
        aws,
        hosting,
        strategy=strategy,
        mode=mode,
        live=live,
        describe=folder if describe else None,
    )


def deploy_to_sagemaker(
    plan: EndpointPlan,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    progress: Progress | None = None,
    sleep: Sleep = time.sleep,
) -> DeployedEndpoint:
    """Bring a plan about, see `trademl.aws.endpoints.deploy_endpoint`, and note it in the ledger.

    Raises
    ------
    CloudError
        As `deploy_endpoint`; the ledger then stays as it was.
    """
    deployed = deploy_endpoint(plan, progress=progress, sleep=sleep)
    deploy(store.get(plan.model.artifact_id), _place_of(plan), store, ledger)
    return deployed


def leaving_sagemaker(plan: EndpointPlan, ledger: Ledger) -> list[str]:
    """Return the strategies that stand at a multi-model endpoint and are none of the plan."""
    place = _place_of(plan)
    named = {asked.called for asked in plan.answering.asked}
    return [name for name in standing_below(place, ledger) if name not in named]


def deploy_together(
    plan: EndpointPlan,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    progress: Progress | None = None,
    sleep: Sleep = time.sleep,
) -> DeployedEndpoint:
    """Bring the plan of a multi-model endpoint about, and note every strategy in the ledger.

    Raises
    ------
    CloudError
        As `trademl.aws.endpoints.deploy_endpoint`; the ledger then stays as it was.
    """
    deployed = deploy_endpoint(plan, progress=progress, sleep=sleep)
    models = {asked.called: store.get(asked.artifact_id) for asked in plan.answering.asked}
    replace_below(_place_of(plan), models, store, ledger)
    return deployed


def _place_of(plan: EndpointPlan) -> str:
    return f"sagemaker:{plan.aws.region}/{plan.endpoint}"


def sagemaker_status(aws: AwsConfig, hosting: HostingConfig, *, strategy: str) -> EndpointState:
    """Return how a strategy's endpoint is.

    Raises
    ------
    ConfigError
        If ``[aws]`` names no region.
    CloudError
        If AWS refuses or cannot be reached.
    """
    return endpoint_state(_endpoint(aws, hosting, strategy), aws.region)


def stop_on_sagemaker(
    aws: AwsConfig,
    hosting: HostingConfig,
    ledger: Ledger,
    *,
    strategy: str,
    progress: Progress | None = None,
    sleep: Sleep = time.sleep,
) -> EndpointState:
    """Delete a strategy's endpoint, see `trademl.aws.endpoint_state.end_endpoint`, and note it.

    Raises
    ------
    ConfigError
        If ``[aws]`` names no region.
    CloudError
        As `end_endpoint`; the ledger then stays as it was.
    """
    name = _endpoint(aws, hosting, strategy)
    ended = end_endpoint(name, aws.region, progress=progress, poll_s=aws.poll_s, sleep=sleep)
    retire(_place(aws, hosting, strategy), ledger)
    return ended


def ask_sagemaker(
    features_ND: Floats,
    aws: AwsConfig,
    hosting: HostingConfig,
    *,
    strategy: str,
    endpoint: str = "",
    model: str = "",
    variant: str = "",
    feature_time_ns: int | None = None,
    content_type: str = RECORDIO,
    progress: Progress | None = None,
) -> Predictions:
    """Return an endpoint's predictions, see `trademl.aws.invoking.predict_on_endpoint`.

    Parameters
    ----------
    endpoint : str
        The strategy's own where empty.

    Raises
    ------
    ConfigError
        If ``[aws]`` names no region.
    CloudError, ServeError
        As `predict_on_endpoint`.
    """
    own = _endpoint(aws, hosting, strategy)
    return predict_on_endpoint(
        endpoint or own,
        features_ND,
        aws.region,
        model=model,
        variant=variant,
        feature_time_ns=feature_time_ns,
        content_type=content_type,
        progress=progress,
    )


def plan_on_ec2(
    strategies: Sequence[ServedStrategy],
    aws: AwsConfig,
    hosting: HostingConfig,
    ec2: Ec2Config,
    store: ArtifactStore,
    *,
    launch: bool = False,
) -> Release:
    """Return the release of strategies for EC2.

    Parameters
    ----------
    strategies : sequence of ServedStrategy
        As `trademl.pipeline.shipping.shipped_strategies` returns them.
    launch : bool
        Whether a machine is to be launched for it.

    Raises
    ------
    ConfigError
        If ``[aws]``, ``[hosting]`` or ``[ec2]`` lacks something, or one server cannot serve them.
    StoreError
        If a model cannot be read.
    """
    check_launchable(aws)
    check_hostable(hosting)
    if launch:
        check_launch(ec2)
    return plan_release(serving_artifact(strategies, store), strategies, aws, hosting, ec2)


def leaving_ec2(release: Release, ledger: Ledger) -> list[str]:
    """Return the strategies that stand on the release's machines and are none of its own."""
    return [name for name in standing_below(release.place, ledger) if name not in release.models]


def deploy_to_ec2(
    release: Release,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    launch: bool = False,
    progress: Progress | None = None,
) -> DeployedRelease:
    """Bring a release to its machines, see `trademl.aws.ec2`, and note it in the ledger.

    Raises
    ------
    CloudError
        As `trademl.aws.ec2.deploy_release`; the ledger then stays as it was.
    """
    left = tuple(leaving_ec2(release, ledger))
    deployed = deploy_release(release, launch=launch, progress=progress)
    models = {name: store.get(model) for name, model in release.models.items()}
    replace_below(release.place, models, store, ledger)
    return replace(deployed, left=left)


def _place(aws: AwsConfig, hosting: HostingConfig, strategy: str) -> str:
    """Return what the ledger calls an endpoint on SageMaker."""
    return f"sagemaker:{aws.region}/{_endpoint(aws, hosting, strategy)}"


def _endpoint(aws: AwsConfig, hosting: HostingConfig, strategy: str) -> str:
    if not aws.region:
        raise ConfigError("aws.region is not set: write it into [aws] of the strategy file")
    return hosting.endpoint or f"trademl-{strategy}"
