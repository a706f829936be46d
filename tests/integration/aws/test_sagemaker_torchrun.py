"""Torchrun through SageMaker's SDK, over HTTP against moto; the SDK is a large extra."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from aws_cases import BUCKET, OWN_IMAGE, REGION, ROLE
from trademl.aws.prices import PriceTable
from trademl.aws.settings import AwsConfig
from trademl.aws.torchrun import TorchrunJob, launch_torchrun
from trademl.errors import CloudError, ConfigError

OWN = AwsConfig(
    region=REGION, role_arn=ROLE, bucket=BUCKET, image=OWN_IMAGE, instance_count=2,
    instance_type="ml.m5.xlarge", max_runtime_s=600,
)  # fmt: skip
PRICES = PriceTable(REGION, {"ml.m5.xlarge": 0.3}, "2026-11-24", "test")


@pytest.fixture
def script(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "train.py").write_text("print('hello')\n")
    return folder / "train.py"


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("sagemaker"), reason="the extra sagemaker is not installed")
def test_torchrun_starts_on_every_host_with_the_sdks_drivers(aws, script, monkeypatch):
    import boto3

    # Moto has no iam:SimulatePrincipalPolicy, with which the SDK looks at the role.
    monkeypatch.setenv("SAGEMAKER_VALIDATE_ROLE", "false")
    job = TorchrunJob(script, processes_per_host=2, hyperparameters={"epochs": "3"})
    name = launch_torchrun(job, OWN, PRICES)
    found = boto3.client("sagemaker", region_name=REGION).describe_training_job(
        TrainingJobName=name
    )
    assert name.startswith("trademl-torchrun")
    assert found["ResourceConfig"]["InstanceCount"] == 2
    assert found["AlgorithmSpecification"]["ContainerEntrypoint"] == ["/bin/bash"]
    channels = {channel["ChannelName"] for channel in found["InputDataConfig"]}
    assert channels == {"code", "sm_drivers"}
    assert found["HyperParameters"] == {"epochs": "3"}
    s3 = boto3.client("s3", region_name=REGION)
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert any(key.endswith("train.py") for key in keys)
    assert any(key.endswith("torchrun_driver.py") for key in keys)


def test_budget_counts_every_machine(script):
    # 2 machines x 600 s x 0.3 USD an hour = 0.10 USD
    with pytest.raises(CloudError, match=r"worst case 0.10 USD: 1 x 2 ml.m5.xlarge.*0.09 USD"):
        launch_torchrun(TorchrunJob(script), OWN, PRICES, max_cost_usd=0.09)


def test_without_an_image_nothing_is_started(script):
    bare = AwsConfig(region=REGION, role_arn=ROLE, bucket=BUCKET)
    with pytest.raises(ConfigError, match="image is not set: torchrun needs an image"):
        launch_torchrun(TorchrunJob(script), bare, PRICES)


def test_a_file_that_is_not_python_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no Python file"):
        TorchrunJob(tmp_path / "train.sh")
