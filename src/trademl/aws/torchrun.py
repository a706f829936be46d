"""A script of your own on several machines: torchrun, started by SageMaker's SDK for Python.

The SDK (version 3, extra ``sagemaker``) brings the drivers that start torchrun inside a container;
it takes seconds to load and 1 GB to install, so nothing else here uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trademl.aws.budget import Estimate, check_budget
from trademl.aws.failures import aws_errors
from trademl.aws.prices import PriceTable
from trademl.aws.settings import AwsConfig, check_launchable
from trademl.errors import CloudError, ConfigError, require_extra


@dataclass(frozen=True)
class TorchrunJob:
    """What every process runs.

    Parameters
    ----------
    script : Path
        A Python file; its folder travels with it.
    processes_per_host : int, optional
        The number of the machine's GPUs by default, or one.
    hyperparameters : mapping of str to str
        Handed to the script as ``--name value``.
    channels : mapping of str to str
        Name to ``s3://`` prefix; the script finds it below ``/opt/ml/input/data``.
    """

    script: Path
    processes_per_host: int | None = None
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    channels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.script.suffix != ".py" or not self.script.is_file():
            raise ConfigError(
                f"{self.script} is no Python file: torchrun starts files ending in .py"
            )
        if self.processes_per_host is not None and self.processes_per_host < 1:
            raise ConfigError(
                f"processes_per_host is {self.processes_per_host}, expected at least 1"
            )


def estimate_torchrun(config: AwsConfig, prices: PriceTable) -> Estimate:
    """Return what a job costs at worst: every machine to ``max_runtime_s``."""
    hours = config.instance_count * config.max_runtime_s / 3600.0
    price = prices.usd_per_hour.get(config.instance_type)
    return Estimate(
        1,
        config.instance_type,
        config.instance_count,
        hours,
        price,
        config.region,
        prices.as_of,
    )


def launch_torchrun(
    job: TorchrunJob,
    config: AwsConfig,
    prices: PriceTable,
    *,
    max_cost_usd: float | None = None,
) -> str:
    """Start a distributed job and return its name; it is not waited for.

    Unlike other jobs it has a new name each time, which the SDK makes: given twice, it runs twice.

    Raises
    ------
    ConfigError
        If ``[aws]`` lacks something, ``image`` among it.
    MissingExtraError
        If the SDK is not installed.
    CloudError
        If the worst case is above the budget, or AWS refuses.
    """
    check_launchable(config)
    if config.is_linear_learner:
        raise ConfigError(
            "aws.image is not set: torchrun needs an image with PyTorch and your dependencies"
        )
    check_budget(estimate_torchrun(config, prices), max_cost_usd or config.max_cost_usd)
    require_extra("aws", "sagemaker")
    with aws_errors(f"starting torchrun of {job.script.name}"):
        try:
            trainer = _trainer(job, config)
            trainer.train(wait=False, logs=False)
        except ValueError as error:  # what the SDK, or pydantic in it, says of its input
            reason = " ".join(str(error).split())
            raise CloudError(f"SageMaker's SDK refuses {job.script.name}: {reason}") from error
        # The SDK keeps what it started in this attribute alone.
        started = trainer._latest_training_job  # noqa: SLF001
    if started is None:
        raise CloudError(f"SageMaker's SDK started no job for {job.script.name}: update sagemaker")
    return str(started.training_job_name)


def _trainer(job: TorchrunJob, config: AwsConfig) -> Any:
    from sagemaker.core.shapes import OutputDataConfig, StoppingCondition
    from sagemaker.train import ModelTrainer
    from sagemaker.train.configs import Compute, InputData, Networking, SourceCode
    from sagemaker.train.distributed import Torchrun

    limits = {"max_runtime_in_seconds": config.max_runtime_s}
    if config.spot:
        limits["max_wait_time_in_seconds"] = config.wait_limit_s
    vpc = {}
    if config.subnets:
        vpc = {"subnets": list(config.subnets), "security_group_ids": list(config.security_groups)}
    return ModelTrainer(
        training_image=config.image,
        role=config.role_arn,
        sagemaker_session=_session(config),
        base_job_name="trademl-torchrun",
        source_code=SourceCode(source_dir=str(job.script.parent), entry_script=job.script.name),
        distributed=Torchrun(process_count_per_node=job.processes_per_host),
        compute=Compute(
            instance_type=config.instance_type,
            instance_count=config.instance_count,
            volume_size_in_gb=config.volume_gb,
            enable_managed_spot_training=config.spot,
        ),
        networking=Networking(
            enable_network_isolation=config.network_isolation,
            enable_inter_container_traffic_encryption=config.encrypt_between_hosts,
            **vpc,
        ),
        hyperparameters=dict(job.hyperparameters),
        input_data_config=[
            InputData(channel_name=name, data_source=uri) for name, uri in job.channels.items()
        ],
        output_data_config=OutputDataConfig(s3_output_path=config.uri("jobs")),
        stopping_condition=StoppingCondition(**limits),
        training_input_mode=config.input_mode,
    )


def _session(config: AwsConfig) -> Any:
    """Return the SDK's session; without a bucket it would ask for the account and make one."""
    import boto3
    from sagemaker.core.helper.session_helper import Session

    return Session(
        boto_session=boto3.session.Session(region_name=config.region),
        default_bucket=config.bucket,
        default_bucket_prefix=config.prefix.strip("/") or None,
    )
