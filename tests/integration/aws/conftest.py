"""A moto server on a free port, a bucket in it, and a project whose strategy runs on SageMaker."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aws_cases import BUCKET, KEYS, REGION, ROLE, clean_environment, make_dataset
from trademl.cli.main import main
from trademl.ledger import Ledger
from trademl.store.artifacts import Artifact, ArtifactStore

TUNING = {
    "StaticHyperParameters": {"predictor_type": "binary_classifier", "epochs": "3"},
    "ParameterRanges": {
        "ContinuousParameterRanges": [
            {"Name": "wd", "MinValue": "1e-7", "MaxValue": "1", "ScalingType": "Logarithmic"}
        ]
    },
    "HyperParameterTuningJobObjective": {
        "MetricName": "validation:precision",
        "Type": "Maximize",
    },
    "Strategy": "Bayesian",
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 1},
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point boto3, here and in processes started from here, to an empty moto with one bucket."""
    import boto3
    import requests

    requests.post(f"{moto_url}/moto-api/reset", timeout=10)
    only(monkeypatch, clean_environment(AWS_ENDPOINT_URL=moto_url, **KEYS))
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return moto_url


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "ws"


@pytest.fixture
def store(workspace: Path) -> ArtifactStore:
    return ArtifactStore(workspace / "artifacts")


@pytest.fixture
def ledger(workspace: Path) -> Iterator[Ledger]:
    workspace.mkdir(exist_ok=True)
    opened = Ledger(f"sqlite:///{workspace / 'ledger.db'}")
    yield opened
    opened.close()


@pytest.fixture
def dataset(store: ArtifactStore, ledger: Ledger) -> Artifact:
    return make_dataset(store, ledger)


@pytest.fixture
def strategy(tmp_path: Path) -> Path:
    """A strategy file with everything that a job needs; tests append to its last section."""
    (tmp_path / "tuning.json").write_text(json.dumps(TUNING))
    path = tmp_path / "strategy.toml"
    path.write_text(
        f'name = "es"\nseed = 3\ntuning = "tuning.json"\n[aws]\nregion = "{REGION}"\n'
        f'role_arn = "{ROLE}"\nbucket = "{BUCKET}"\npoll_s = 0.05\n'
    )
    return path


@pytest.fixture
def run(
    tmp_path: Path,
    dataset: Artifact,
    strategy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run the command line beside the strategy file, on the workspace that holds the dataset.

    In this process, because a new one takes seconds to load; `main` is what a user meets.
    """

    def trademl(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        shared = ("--workspace", "ws")  # and strategy.toml of this folder
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr("sys.argv", ["trademl", *words, *shared])
            only(patch, dict(os.environ) if env is None else env)
            with pytest.raises(SystemExit) as stop:
                main()
        found = capsys.readouterr()
        return subprocess.CompletedProcess(words, int(stop.value.code or 0), found.out, found.err)

    return trademl


def only(patch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Make ``environment`` the whole environment."""
    for name in set(os.environ) - set(environment):
        patch.delenv(name)
    for name, value in environment.items():
        patch.setenv(name, value)
