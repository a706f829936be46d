"""What is sent really trains: a job's container is run here from nothing but its request.

The request's channels are laid out below a folder as SageMaker does, `trademl train` runs on it, and
the model goes to where the request says. The model that comes back must be the one of a training
at home, to the bit.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aws_cases import (
    BUCKET,
    OWN_IMAGE,
    REGION,
    ROLE,
    TrainingService,
    described_training,
    make_dataset,
)
from trademl.aws.jobs import train_on_sagemaker
from trademl.aws.settings import AwsConfig
from trademl.train.jobs import train_dataset
from trademl.train.studies import read_trials

STATIC = {"predictor_type": "binary_classifier", "epochs": "3", "mini_batch_size": "20"}


class Container(TrainingService):
    """Runs the container of every job that is created, before the job is described."""

    def __init__(self, root: Path, s3: Any) -> None:
        super().__init__()
        self.root = root
        self.s3 = s3
        self.log = ""

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = super().create(request)
        self._lay_out(request)
        command = [sys.executable, "-m", "trademl", "train", "--ml-root", str(self.root)]
        environment = {**os.environ, **request["Environment"]}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        self.log = done.stdout
        self._take_away(request)
        return answer

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["TrainingJobName"] not in self.jobs:
            return super().describe(request)
        sent = self.jobs[request["TrainingJobName"]]
        return described_training(sent, FinalMetricDataList=self._figures(sent))

    def _lay_out(self, request: dict[str, Any]) -> None:
        config = self.root / "input" / "config"
        config.mkdir(parents=True)
        channels = {}
        for channel in request["InputDataConfig"]:
            self._fetch(channel)
            channels[channel["ChannelName"]] = {
                "ContentType": channel["ContentType"], "TrainingInputMode": channel["InputMode"],
                "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None",
            }  # fmt: skip
        (config / "inputdataconfig.json").write_text(json.dumps(channels))
        (config / "hyperparameters.json").write_text(json.dumps(request["HyperParameters"]))

    def _fetch(self, channel: dict[str, Any]) -> None:
        """Bring a channel's objects, named relative to their prefix as SageMaker names them."""
        source = channel["DataSource"]["S3DataSource"]
        key = source["S3Uri"].removeprefix(f"s3://{BUCKET}/")
        if source["S3DataType"] == "ManifestFile":
            head, *names = json.loads(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
            prefix = head["prefix"].removeprefix(f"s3://{BUCKET}/")
            keys = [prefix + name for name in names]
        else:
            listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"]
            keys = [entry["Key"] for entry in listed]
        folder = self.root / "input" / "data" / channel["ChannelName"]
        folder.mkdir(parents=True)
        for one in keys:
            self.s3.download_file(BUCKET, one, str(folder / one.rpartition("/")[2]))

    def _take_away(self, request: dict[str, Any]) -> None:
        archive = self.root / "model.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted((self.root / "model").iterdir()):
                tar.add(path, path.name)
        uri = described_training(request)["ModelArtifacts"]["S3ModelArtifacts"]
        self.s3.upload_file(str(archive), BUCKET, uri.removeprefix(f"s3://{BUCKET}/"))

    def _figures(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the last value of every metric that the request's expressions find in the log."""
        found = []
        for one in request["AlgorithmSpecification"]["MetricDefinitions"]:
            if values := re.findall(one["Regex"], self.log):
                metric = {"MetricName": one["Name"], "Value": float(values[-1])}
                found.append({**metric, "Timestamp": 1_790_000_000.0})
        return found


@pytest.mark.slow
@pytest.mark.parametrize("parts", [0, 2])
def test_a_container_trains_the_model_of_a_training_at_home(
    aws, store, ledger, tmp_path, monkeypatch, parts
):
    import boto3

    dataset = make_dataset(store, ledger, parts=parts)
    config = AwsConfig(region=REGION, role_arn=ROLE, bucket=BUCKET, image=OWN_IMAGE, poll_s=0.05)
    service = Container(tmp_path / "ml", boto3.client("s3", region_name=REGION))
    with service.server.running() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", server.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        remote = train_on_sagemaker(dataset, STATIC, store, ledger, config, seed=11).study
    home = train_dataset(dataset, STATIC, store, ledger, seed=11)

    (there,), (here,) = read_trials(remote), read_trials(home)
    assert there.failure is None
    np.testing.assert_array_equal(there.model().weights_D, here.model().weights_D)
    assert there.model().columns == here.model().columns == ("a", "b", "c")
    assert there.model().threshold == here.model().threshold
    assert there.objective == pytest.approx(here.objective, rel=1e-6)
