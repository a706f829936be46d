"""A job before it is sent: its request, its name, its study's id and what it may cost at worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from trademl.aws.channels import dataset_channels
from trademl.aws.images import linear_learner_image
from trademl.aws.names import TRAINING_LIMIT, TUNING_LIMIT, attempt_name, check_name, job_name
from trademl.aws.requests import JobPlace, training_job_request, tuning_job_request
from trademl.aws.settings import AwsConfig, check_launchable
from trademl.aws.tuning_request import TuningRequest, read_tuning_request
from trademl.errors import ConfigError
from trademl.store.artifacts import Artifact
from trademl.store.identity import artifact_id
from trademl.train.hyperparameters import PLATFORM_KEYS, LinearLearnerParameters, as_text
from trademl.train.search_space import VALIDATION_LOSS
from trademl.train.trials import Objective

Kind = Literal["training", "tuning"]
REQUEST_VERSION = 1  # raised when requests change so that their results would differ


@dataclass(frozen=True)
class JobPlan:
    """Everything about a job that is known before a word is said to AWS.

    Parameters
    ----------
    place : JobPlace
        Its name, image, channels and machines.
    body : mapping of str to str, or TuningRequest
        The hyperparameters of a training job; or what a tuning job searches.
    parameters : mapping
        Of the manifest of the study that it will become.
    """

    place: JobPlace
    body: Mapping[str, str] | TuningRequest
    parameters: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Training or tuning."""
        return "tuning" if isinstance(self.body, TuningRequest) else "training"

    @property
    def name(self) -> str:
        """Name of the job."""
        return self.place.name

    @property
    def study_id(self) -> str:
        """Id of the study that the job will become; the job's name is made from it."""
        return self.place.study_id

    @property
    def objective(self) -> Objective:
        """What the study is ranked by."""
        return self.body.objective if isinstance(self.body, TuningRequest) else VALIDATION_LOSS

    @property
    def static(self) -> Mapping[str, str]:
        """Hyperparameters of every training job."""
        return self.body.static if isinstance(self.body, TuningRequest) else self.body

    @property
    def n_jobs(self) -> int:
        """Training jobs at most."""
        return self.body.config.n_jobs if isinstance(self.body, TuningRequest) else 1

    @property
    def request(self) -> dict[str, Any]:
        """The request that starts the job."""
        if isinstance(self.body, TuningRequest):
            return tuning_job_request(self.place, self.body)
        return training_job_request(self.place, self.body)

    def attempt(self, number: int) -> JobPlan:
        """Return the plan of another attempt at the same study, from 1."""
        limit = TRAINING_LIMIT if self.kind == "training" else TUNING_LIMIT
        name = attempt_name(self.name, number, limit)
        return replace(self, place=replace(self.place, name=name))


def plan_training(
    dataset: Artifact,
    hyperparameters: Mapping[str, str],
    config: AwsConfig,
    *,
    seed: int,
    strategy: str = "",
) -> JobPlan:
    """Return the plan of one training job; nothing is sent.

    Raises
    ------
    ConfigError
        If ``[aws]`` lacks something, or a hyperparameter or the dataset's format is refused.
    """
    static = {k: as_text(v) for k, v in hyperparameters.items() if k not in PLATFORM_KEYS}
    _check_static(static, dataset)
    image = _image(config)
    parameters = {
        "hyperparameters": static,
        "seed": seed,
        "sagemaker": _decisive(config, image),
    }
    study_id = _study_id(dataset, parameters, image)
    name = check_name(job_name(study_id), TRAINING_LIMIT)
    channels = dataset_channels(dataset, config, with_test=False)
    place = JobPlace(name, study_id, strategy, seed, image, channels, config)
    return JobPlan(place, static, parameters)


def plan_tuning(
    dataset: Artifact,
    tuning: Mapping[str, Any],
    config: AwsConfig,
    *,
    seed: int,
    strategy: str = "",
) -> JobPlan:
    """Return the plan of a tuning job; nothing is sent.

    Parameters
    ----------
    tuning : mapping
        SageMaker's JSON, as the local search takes it. Its ``HyperParameterTuningJobName`` is kept
        where it has one; ``seed`` stands for a missing ``RandomSeed``.

    Raises
    ------
    ConfigError
        If ``[aws]`` lacks something, or the job or the dataset's format is refused.
    """
    found = read_tuning_request(tuning, seed)
    _check_static(found.static, dataset)
    image = _image(config)
    if config.is_linear_learner and found.only_local:
        raise ConfigError(
            f"{found.only_local[0]} has listed values, AWS's Linear Learner takes a range of "
            "numbers alone: give it MinValue and MaxValue"
        )
    parameters = {"tuning": dict(tuning), "seed": seed, "sagemaker": _decisive(config, image)}
    study_id = _study_id(dataset, parameters, image)
    name = check_name(found.config.name or job_name(study_id), TUNING_LIMIT)
    channels = dataset_channels(dataset, config, with_test=found.reads_test)
    place = JobPlace(name, study_id, strategy, seed, image, channels, config)
    return JobPlan(place, found, parameters, found.config.warnings)


def _image(config: AwsConfig) -> str:
    check_launchable(config)
    return config.image or linear_learner_image(config.region)


def _decisive(config: AwsConfig, image: str) -> dict[str, Any]:
    """Return what of ``[aws]`` can change a result; machine, limits and price cannot."""
    return {
        "image": image,
        "input_mode": config.input_mode,
        "instance_count": config.instance_count,
    }


def _study_id(dataset: Artifact, parameters: Mapping[str, Any], image: str) -> str:
    """Return an id that a newer trademl gives too: the code that trains is the image's."""
    code = f"{image}#{REQUEST_VERSION}"
    return artifact_id("study", {"dataset": dataset.id}, parameters, code=code)


def _check_static(static: Mapping[str, str], dataset: Artifact) -> None:
    parameters = LinearLearnerParameters.from_strings(
        {name: value for name, value in static.items() if name != "num_models"}
    )
    width = dataset.metrics.get("feature_dim")
    if parameters.feature_dim is not None and width not in (None, parameters.feature_dim):
        raise ConfigError(
            f"feature_dim is {parameters.feature_dim}, {dataset.id} has {width} columns: set it to "
            f"{width}, or to auto"
        )
