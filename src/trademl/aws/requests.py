"""The requests that start jobs, as pure values: what ``--dry-run`` prints is what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trademl.aws.channels import Channel
from trademl.aws.settings import AwsConfig
from trademl.aws.tuning_request import TuningRequest
from trademl.train.metric_regexes import regexes_of

CHECKPOINTS = "/opt/ml/checkpoints"
SEED_VARIABLE = "TRADEML_SEED"  # as trademl.config reads it in the container


@dataclass(frozen=True)
class JobPlace:
    """Where and as what a job runs.

    Parameters
    ----------
    name : str
        Of the job.
    study_id, strategy : str
        Put on it as tags.
    seed : int
        Told to an image of ours; AWS's Linear Learner takes none.
    image : str
    channels : tuple of Channel
    config : AwsConfig
    """

    name: str
    study_id: str
    strategy: str
    seed: int
    image: str
    channels: tuple[Channel, ...]
    config: AwsConfig


def training_job_request(place: JobPlace, hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the request of ``CreateTrainingJob``."""
    checkpoints = {"S3Uri": place.config.uri("checkpoints", place.name), "LocalPath": CHECKPOINTS}
    return {
        "TrainingJobName": place.name,
        "HyperParameters": dict(hyperparameters),
        **_definition(place, hyperparameters),
        **({"CheckpointConfig": checkpoints} if place.config.spot else {}),
        "Tags": _tags(place),
    }


def tuning_job_request(place: JobPlace, tuning: TuningRequest) -> dict[str, Any]:
    """Return the request of ``CreateHyperParameterTuningJob``.

    Its children have no checkpoints: whether SageMaker would give each a folder of its own is not
    documented, and one must not go on with the state of another.
    """
    request = {
        "HyperParameterTuningJobName": place.name,
        "HyperParameterTuningJobConfig": dict(tuning.job),
        "TrainingJobDefinition": {
            "StaticHyperParameters": dict(tuning.static),
            **_definition(place, tuning.static),
        },
        "Tags": _tags(place),
    }
    if tuning.warm_start:
        request["WarmStartConfig"] = dict(tuning.warm_start)
    return request


def _definition(place: JobPlace, static: Mapping[str, str]) -> dict[str, Any]:
    """Return what a training job and the definition of a tuning job's children share."""
    config = place.config
    definition: dict[str, Any] = {
        "AlgorithmSpecification": _algorithm(place, static),
        "RoleArn": config.role_arn,
        "InputDataConfig": [channel.as_request(config) for channel in place.channels],
        **_machines(config),
        "StoppingCondition": {"MaxRuntimeInSeconds": config.max_runtime_s},
        "EnableNetworkIsolation": config.network_isolation,
        "EnableInterContainerTrafficEncryption": config.encrypt_between_hosts,
        "EnableManagedSpotTraining": config.spot,
    }
    if not config.is_linear_learner:
        definition["Environment"] = {SEED_VARIABLE: str(place.seed)}
    if config.spot:
        definition["StoppingCondition"]["MaxWaitTimeInSeconds"] = config.wait_limit_s
    if config.subnets:
        definition["VpcConfig"] = {
            "Subnets": list(config.subnets),
            "SecurityGroupIds": list(config.security_groups),
        }
    return definition


def _machines(config: AwsConfig) -> dict[str, Any]:
    """Return what a job runs on and writes to, each with its key where it has one."""
    output = {"S3OutputPath": config.uri("jobs")}
    resources: dict[str, Any] = {
        "InstanceType": config.instance_type,
        "InstanceCount": config.instance_count,
        "VolumeSizeInGB": config.volume_gb,
    }
    if config.output_kms_key:
        output["KmsKeyId"] = config.output_kms_key
    if config.volume_kms_key:
        resources["VolumeKmsKeyId"] = config.volume_kms_key
    return {"OutputDataConfig": output, "ResourceConfig": resources}


def _algorithm(place: JobPlace, static: Mapping[str, str]) -> dict[str, Any]:
    """Return the image; SageMaker fills in the metrics of its own images by itself."""
    found: dict[str, Any] = {
        "TrainingImage": place.image,
        "TrainingInputMode": place.config.input_mode,
    }
    if not place.config.is_linear_learner:
        regexes = regexes_of(static["predictor_type"])
        found["MetricDefinitions"] = [{"Name": n, "Regex": regex} for n, regex in regexes.items()]
    return found


def _tags(place: JobPlace) -> list[dict[str, str]]:
    own = {"trademl:study": place.study_id, "trademl:strategy": place.strategy or "-"}
    tags = {**own, **(place.config.tags or {})}
    return [{"Key": key, "Value": value} for key, value in tags.items()]
