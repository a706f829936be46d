"""Models of a workspace put behind an endpoint of SageMaker, and what the ledger keeps of it."""

from __future__ import annotations

import time

from trademl.aws.endpoint_plan import EndpointPlan, plan_endpoint
from trademl.aws.endpoints import DeployedEndpoint, Sleep, deploy_endpoint
from trademl.aws.hosting import HostingConfig
from trademl.aws.settings import AwsConfig
from trademl.errors import ServeError
from trademl.ledger import Ledger
from trademl.ports import Progress
from trademl.serve.deployments import current_deployment, deploy
from trademl.serve.served import Mode
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
) -> EndpointPlan:
    """Return the plan of a model's endpoint: a champion answers, any other model is a shadow.

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
    return plan_endpoint(model, aws, hosting, strategy=strategy, mode=mode, live=live)


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
    place = _place(plan.aws, plan.hosting, plan.strategy)
    deploy(store.get(plan.model.artifact_id), place, store, ledger)
    return deployed


def _place(aws: AwsConfig, hosting: HostingConfig, strategy: str) -> str:
    """Return what the ledger calls an endpoint on SageMaker."""
    return f"sagemaker:{aws.region}/{hosting.endpoint or f'trademl-{strategy}'}"
