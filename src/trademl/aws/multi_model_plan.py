"""A multi-model endpoint before anything is sent: several strategies, each an archive of its own.

SageMaker keeps a model that it has loaded under its name, and tells nobody whether it did. So no
archive is ever written over: all of a release lie below a prefix that is made of their digests,
and a release with another archive is another model, on machines that have loaded nothing yet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trademl.aws.endpoint_plan import EndpointPlan
from trademl.aws.hosted_models import HostedArchive, SharedModel, sagemaker_name
from trademl.aws.hosting import HostingConfig, check_hostable
from trademl.aws.names import TRAINING_LIMIT, check_name
from trademl.aws.settings import AwsConfig, check_launchable
from trademl.errors import ConfigError
from trademl.serve.archives import check_digest
from trademl.serve.placement import CPU
from trademl.serve.serving_artifact import serving_artifact
from trademl.serve.serving_folder import check_together, model_files
from trademl.serve.shares import Quota
from trademl.serve.strategies import ServedStrategy
from trademl.store.artifacts import ArtifactStore
from trademl.store.identity import artifact_id
from trademl.train.model_archive import MODEL_FILE

ENDPOINT = "serving"  # where [hosting] names none, trademl-serving
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ACCELERATED = re.compile(r"ml\.(p|g|inf|trn)\d")
_ELSEWHERE = "serve it with trademl deploy ec2, or at an endpoint of its own (--config FILE)"


def plan_multi_model(
    strategies: Sequence[ServedStrategy],
    aws: AwsConfig,
    hosting: HostingConfig,
    store: ArtifactStore,
) -> EndpointPlan:
    """Return the plan of one endpoint for several strategies; nothing is sent.

    Raises
    ------
    ConfigError
        If ``[aws]`` or ``[hosting]`` lacks something, or a multi-model endpoint cannot be what is
        asked for.
    StoreError
        If a model cannot be read, or an archive is not what its manifest lists.
    """
    check_launchable(aws)
    check_hostable(hosting)
    check_together(strategies)
    _check_hosting(hosting)
    for strategy in strategies:
        _check_strategy(strategy)
    endpoint = check_name(hosting.endpoint or f"trademl-{ENDPOINT}", TRAINING_LIMIT)
    model = _shared_model(strategies, aws, hosting, store)
    names = " ".join(strategy.name for strategy in strategies)
    return EndpointPlan(endpoint, names, model, "live", None, aws, hosting)


def _shared_model(
    strategies: Sequence[ServedStrategy],
    aws: AwsConfig,
    hosting: HostingConfig,
    store: ArtifactStore,
) -> SharedModel:
    archives = tuple(_archive(strategy, store) for strategy in strategies)
    digests = {one.target: one.sha256 for one in archives}
    release = artifact_id("release", {}, digests, code="1")
    given = {"release": release, "image": hosting.image, "role": aws.role_arn}
    if hosting.workers > 1:
        given["workers"] = str(hosting.workers)
    uri = f"{aws.uri('multi-model', release)}/"
    name = sagemaker_name("model", given)
    return SharedModel(release, archives, name, uri, hosting.image, hosting.workers)


def _archive(strategy: ServedStrategy, store: ArtifactStore) -> HostedArchive:
    serving = serving_artifact([strategy], store)
    archive, sha256 = serving.file(MODEL_FILE), serving.manifest["files"][MODEL_FILE]["sha256"]
    check_digest(archive, sha256)
    return HostedArchive(strategy, archive, sha256)


def _check_hosting(hosting: HostingConfig) -> None:
    if hosting.capture_percent:
        raise ConfigError(
            f"hosting.capture_percent is {hosting.capture_percent}: Model Monitor takes endpoints "
            "of one model only, and AWS does not say what is captured at others; set it to 0"
        )
    if _ACCELERATED.match(hosting.instance_type):
        raise ConfigError(
            f"hosting.instance_type is {hosting.instance_type}: on accelerators a multi-model "
            "endpoint runs NVIDIA Triton only; choose a machine without, such as ml.m5.large"
        )


def _check_strategy(strategy: ServedStrategy) -> None:
    """Refuse what would be dropped in silence, or answered otherwise than its file says."""
    name = strategy.name
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"strategy {name!r} would be {name}.tar.gz in S3: expected letters, digits, dot, dash "
            "and underscore in [serving] endpoint"
        )
    if len(strategy.ladder) > 1:
        raise ConfigError(
            f"strategy {name} has {len(strategy.ladder)} rungs: a multi-model endpoint loads one "
            f"model of each; {_ELSEWHERE}"
        )
    (model,) = model_files(strategy)
    if model.device != CPU:
        raise ConfigError(
            f"strategy {name} has device {model.device!r}: a multi-model endpoint computes on the "
            f"processor; {_ELSEWHERE}"
        )
    if strategy.quota != Quota():
        raise ConfigError(
            f"strategy {name} has a quota: a multi-model endpoint knows none; "
            f"leave serving.quotas out, or {_ELSEWHERE}"
        )
    if model.mode != "live":
        raise ConfigError(
            f"strategy {name}: {model.id} is no champion, and SageMaker has no shadows at "
            "multi-model endpoints; promote it, or shadow it at an endpoint of its own "
            "(--config FILE)"
        )
