"""The plan: what is chosen for which network and device, and requests that never start a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trademl.errors import ConfigError
from trademl.etl.recordio import write_recordio
from trademl.train.network_config import NetworkConfig, NetworkTraining
from trademl.train.parallel.agent import torchrun_arguments
from trademl.train.parallel.devices import Device
from trademl.train.parallel.distribution import parse_distribution
from trademl.train.parallel.job import NetworkJob, read_job, write_job
from trademl.train.parallel.launch import worker_environment
from trademl.train.parallel.plan import choose, make_plan
from trademl.train.parallel.position import EpochLoss, Position
from trademl.train.parallel.sagemaker_job import job_of_container

NETWORK = NetworkConfig("transformer", n_steps=16, width=64, depth=6)
TRAINING = NetworkTraining(batch_size=64)
D = 16 * 4


def plan(memory_bytes: float, bytes_per_s: float = 1e12, n: int = 4):
    device = Device("a device", int(memory_bytes), 1e12, bytes_per_s, n)
    return make_plan(NETWORK, TRAINING, D, n_processes=n, device=device)


def test_copies_are_chosen_where_they_fit_and_links_are_fast():
    found = plan(1e12)

    assert found.chosen.name == "data"
    assert found.chosen.state_bytes == 16 * found.n_weights


def test_a_network_that_does_not_fit_is_divided():
    copies = plan(1e12).chosen
    found = plan(0.9 * copies.n_bytes)

    assert found.chosen.distribution.technique in ("fsdp", "pipeline")
    assert found.chosen.n_bytes < copies.n_bytes


def test_slow_links_favour_layers_over_weights():
    """An eighth of the layers' weights stay where they are; only activations travel."""
    assert plan(1e12, bytes_per_s=1e6).chosen.name == "model"


def test_memory_of_copies_by_hand():
    """Rows of one process times the bytes that a row keeps, and the largest layer's once more."""
    found = plan(1e12)
    copies = next(c for c in found.candidates if c.name == "data")

    assert copies.activation_bytes > 16 * found.activation_bytes_per_row
    assert copies.activation_bytes < 2 * 16 * found.activation_bytes_per_row


def test_every_candidate_of_a_plan_could_start():
    for candidate in plan(1e12, n=8).candidates:
        job = job_of(Path("/nowhere"), distribution=candidate.distribution, processes=8)
        assert job.dims() == candidate.dims


def test_nothing_that_fits_says_what_to_change():
    with pytest.raises(ConfigError, match=r"a device has 1000 B: take more processes"):
        choose(plan(1000))


def job_of(folder: Path, *, distribution, processes: int) -> NetworkJob:
    return NetworkJob(
        network=NETWORK,
        training=TRAINING,
        distribution=distribution,
        columns=tuple(f"x{i}" for i in range(D)),
        train=(folder / "train.recordio",),
        validation=(folder / "validation.recordio",),
        folder=folder,
        processes_per_host=processes,
    )


def test_a_job_is_the_same_after_its_file(tmp_path):
    job = job_of(tmp_path, distribution=parse_distribution("pipeline"), processes=2)

    assert read_job(write_job(job)) == job


def test_torchrun_is_told_of_one_machine_and_the_agent():
    found = torchrun_arguments(Path("/run/job.json"), 2, 3, agent=77)

    assert found[:4] == ["--standalone", "--nnodes=1", "--nproc-per-node=2", "--max-restarts=3"]
    assert found[-2:] == ["--job=/run/job.json", "--parent=77"]


def test_variables_of_a_distribution_reach_the_workers(tmp_path):
    spelling = {"ddp": True, "environment": {"NCCL_DEBUG": "VERSION"}}
    job = job_of(tmp_path, distribution=parse_distribution(spelling), processes=64)

    found = worker_environment(job, {"PATH": "/bin"})
    assert found["PATH"] == "/bin"
    assert (found["NCCL_DEBUG"], found["OMP_NUM_THREADS"]) == ("VERSION", "1")


def test_patience_counts_epochs_without_enough_gain_and_keeps_the_lowest():
    position = Position()
    for epoch, loss in enumerate((1.0, 0.9, 0.8999, 0.95)):
        position = Position(step=epoch, **_rest(position)).after_epoch(
            EpochLoss(epoch, 1.0, loss, 1.0), tolerance=0.01
        )

    assert (position.idle, position.best_step, position.best_loss) == (2, 2, 0.8999)


def _rest(position: Position) -> dict:
    return {
        name: getattr(position, name)
        for name in ("epoch", "history", "best_step", "best_loss", "idle")
    }


def test_a_sagemaker_container_describes_a_job(tmp_path, request):
    import numpy as np

    for channel in ("train", "validation"):
        folder = tmp_path / "input/data" / channel
        folder.mkdir(parents=True)
        write_recordio(
            folder / "part-0.recordio", np.zeros((4, D), np.float32), np.zeros(4, np.float32)
        )
    config = tmp_path / "input/config"
    config.mkdir()
    hyperparameters = {
        "network": json.dumps({"kind": "transformer", "n_steps": 16}),
        "training": json.dumps({"batch_size": "32"}),
        "distribution": json.dumps({"pipeline": {"stages": 2}}),
        "seed": "3",
    }
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    (config / "resourceconfig.json").write_text(json.dumps({"hosts": ["algo-1", "algo-2"]}))

    job = job_of_container(tmp_path, world=4)

    assert (job.hosts, job.processes_per_host, job.seed) == (2, 2, 3)
    assert (job.network.n_steps, job.training.batch_size, job.feature_dim) == (16, 32, D)
    assert job.dims().dp == 2
