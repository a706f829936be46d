"""An endpoint before anything is sent: names, requests, and what an hour of it costs.

Names are made of what they stand for (the model's id, the image, the machines), so that the same
command finds what it has made before, and two different models never share a name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trademl.aws.hosted_models import (
    HostedModel,
    SharedModel,
    model_request,
    sagemaker_name,
    tags,
)
from trademl.aws.hosting import (
    HostingConfig,
    capture_config,
    check_hostable,
    deployment_config,
)
from trademl.aws.names import TRAINING_LIMIT, check_name
from trademl.aws.prices import PriceTable
from trademl.aws.settings import AwsConfig, check_launchable
from trademl.errors import ConfigError
from trademl.serve.served import Mode
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import Artifact
from trademl.store.identity import digest_file
from trademl.train.model_archive import MODEL_FILE

MAIN, SHADOW = "main", "shadow"
Describe = Callable[[Artifact, Mode], tuple[ServedStrategy, Artifact]]


@dataclass(frozen=True)
class EndpointPlan:
    """Everything about an endpoint that is known before a word is said to AWS.

    Parameters
    ----------
    endpoint, strategy : str
    model : HostedModel or SharedModel
        What is deployed.
    mode : {"live", "shadow"}
        A shadow model is sent copies of requests, and nobody sees its answers.
    live : HostedModel or None
        What answers beside a shadow model.
    """

    endpoint: str
    strategy: str
    model: HostedModel | SharedModel
    mode: Mode
    live: HostedModel | None
    aws: AwsConfig
    hosting: HostingConfig

    @property
    def config_name(self) -> str:
        """Name of the endpoint configuration."""
        given = {"variants": self._variants, "kms": self.aws.volume_kms_key}
        return sagemaker_name("config", given | self._capture)

    @property
    def models(self) -> tuple[HostedModel | SharedModel, ...]:
        """Models that must be there, the answering one first."""
        return (self.live, self.model) if self.live else (self.model,)

    @property
    def answering(self) -> HostedModel | SharedModel:
        """The model whose answers callers see."""
        return self.models[0]

    @property
    def n_machines(self) -> int:
        """Machines of all variants; an update needs twice as many while it lasts."""
        return self.hosting.instance_count * len(self.models)

    @property
    def _variants(self) -> dict[str, Any]:
        found = {"ProductionVariants": [self._variant(MAIN, self.answering, 1.0)]}
        if self.live:
            share = self.hosting.shadow_percent / 100.0
            found["ShadowProductionVariants"] = [self._variant(SHADOW, self.model, share)]
        return found

    @property
    def _capture(self) -> dict[str, Any]:
        if not self.hosting.capture_percent:
            return {}
        uri, key = self.aws.uri("capture"), self.aws.output_kms_key
        return {"DataCaptureConfig": capture_config(self.hosting, uri, key)}

    def _variant(
        self, name: str, model: HostedModel | SharedModel, weight: float
    ) -> dict[str, Any]:
        return {
            "VariantName": name,
            "ModelName": model.name,
            "InitialInstanceCount": self.hosting.instance_count,
            "InstanceType": self.hosting.instance_type,
            "InitialVariantWeight": weight,
            "ContainerStartupHealthCheckTimeoutInSeconds": self.hosting.startup_timeout_s,
        }

    def model_request(self, model: HostedModel | SharedModel) -> dict[str, Any]:
        """Return the request of ``CreateModel``."""
        return model_request(model, self.aws, self.strategy)

    @property
    def config_request(self) -> dict[str, Any]:
        """The request of ``CreateEndpointConfig``."""
        found = {
            "EndpointConfigName": self.config_name,
            **self._variants,
            **self._capture,
            "Tags": tags(self.aws, self.model, self.strategy),
        }
        if self.aws.volume_kms_key:
            found["KmsKeyId"] = self.aws.volume_kms_key
        return found

    @property
    def create_request(self) -> dict[str, Any]:
        """The request of ``CreateEndpoint``, where there is none of the name."""
        return {**self._named(), "Tags": tags(self.aws, self.model, self.strategy)}

    @property
    def update_request(self) -> dict[str, Any]:
        """The request of ``UpdateEndpoint``, where there is one."""
        return {**self._named(), "DeploymentConfig": deployment_config(self.hosting)}

    def _named(self) -> dict[str, Any]:
        return {"EndpointName": self.endpoint, "EndpointConfigName": self.config_name}

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Everything that is sent, in order; of the last two the one that fits."""
        return [
            *({"CreateModel": self.model_request(model)} for model in self.models),
            {"CreateEndpointConfig": self.config_request},
            {"CreateEndpoint": self.create_request},
            {"UpdateEndpoint": self.update_request},
        ]


def plan_endpoint(
    model: Artifact,
    aws: AwsConfig,
    hosting: HostingConfig,
    *,
    strategy: str,
    mode: Mode,
    live: Artifact | None = None,
    describe: Describe | None = None,
) -> EndpointPlan:
    """Return the plan of an endpoint; nothing is sent.

    Parameters
    ----------
    mode : {"live", "shadow"}
    live : Artifact, optional
        The model that answers beside one in shadow mode.
    describe : callable, optional
        Returns what is served with a model, in its mode, and the artifact of its serving folder;
        models are hosted bare without it.

    Raises
    ------
    ConfigError
        If ``[aws]`` or ``[hosting]`` lacks something, or a shadow model has nothing beside it.
    """
    check_launchable(aws)
    check_hostable(hosting)
    if mode == "shadow" and live is None:
        raise ConfigError(
            f"{model.id} is no champion, so that it may run in shadow mode only, and no live model "
            "stands at the endpoint to shadow: deploy the champion first"
        )
    name = check_name(hosting.endpoint or f"trademl-{strategy}", TRAINING_LIMIT)
    hosted = hosted_model(model, aws, hosting, mode, describe)
    beside = None
    if mode == "shadow" and live:
        beside = hosted_model(live, aws, hosting, "live", describe)
    return EndpointPlan(name, strategy, hosted, mode, beside, aws, hosting)


def hosted_model(
    model: Artifact,
    aws: AwsConfig,
    hosting: HostingConfig,
    mode: Mode,
    describe: Describe | None = None,
) -> HostedModel:
    """Return what a model is called on SageMaker, and where its archive goes."""
    strategy, sent = describe(model, mode) if describe else (None, model)
    archive = sent.file(MODEL_FILE)
    digest = digest_file(archive)[:12]
    given = {"model": model.id, "sha256": digest, "image": hosting.image, "role": aws.role_arn}
    given["mode"] = mode
    if hosting.workers > 1:
        given["workers"] = str(hosting.workers)
    uri = aws.uri("serving" if strategy else "models", sent.id, digest, MODEL_FILE)
    name = sagemaker_name("model", given)
    return HostedModel(model.id, archive, name, uri, hosting.image, mode, hosting.workers, strategy)


def hourly_cost(plan: EndpointPlan, prices: PriceTable) -> str:
    """Return one line: what the endpoint costs for as long as it stands."""
    kind = plan.hosting.instance_type
    machines = f"{plan.n_machines} x {kind}"
    usd = prices.usd_per_hour.get(kind)
    if usd is None:
        return f"{machines}: no price known in {plan.aws.region}: trademl aws prices --refresh"
    hour = usd * plan.n_machines
    return (
        f"{hour:.4g} USD an hour, {hour * 730:.2f} USD a month, until it is deleted: {machines}, "
        f"at the price of training on it in {plan.aws.region} as of {prices.as_of}"
    )
