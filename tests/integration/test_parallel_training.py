"""Several processes train as one does: the same losses, whatever is divided, lost or killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import parallel_cases
from parallel_cases import job_of, write_rows
from trademl.errors import ConfigError, TrainError
from trademl.train.network_file import load_network
from trademl.train.parallel.job import NetworkJob, write_job
from trademl.train.parallel.launch import launch
from trademl.train.parallel.run_job import read_history, run_job

pytestmark = pytest.mark.slow
IN_FOUR = (
    "ddp",
    "ddp_in_pieces",
    "fsdp",
    "fsdp_in_pieces",
    "1f1b",
    "spread",
    "gpipe",
    "four_stages",
    "interleaved",
)
IN_LOW_PRECISION = ("fsdp_low", "1f1b_low")
LAUNCH = """
import sys
from pathlib import Path
from trademl.train.parallel.job import read_job
from trademl.train.parallel.launch import launch
import os
launch(read_job(Path(sys.argv[1])), environment=os.environ)
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep OpenMP's threads from waiting for one another where tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def torchrun(folder: Path, processes: int, *names: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", parallel_cases.__file__, str(folder), *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def losses(folder: Path) -> np.ndarray:
    return np.array([(h["train_loss"], h["validation_loss"]) for h in read_history(folder)])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of rows, and the case ``alone`` trained on them by this very process."""
    folder = tmp_path_factory.mktemp("parallel")
    write_rows(folder)
    run_job(job_of(folder, "alone", processes=1))
    return folder


@pytest.fixture(scope="module")
def trained(alone: Path) -> Path:
    torchrun(alone, 4, *IN_FOUR, *IN_LOW_PRECISION, "short")
    return alone


def test_one_process_learns(alone):
    assert losses(alone / "alone")[:, 1].min() < 0.6 < np.log(2)


@pytest.mark.parametrize("name", IN_FOUR)
def test_losses_are_those_of_one_process(trained, name):
    np.testing.assert_allclose(losses(trained / name), losses(trained / "alone"), rtol=2e-6)


@pytest.mark.parametrize("name", IN_LOW_PRECISION)
def test_bfloat16_moves_losses_a_little(trained, name):
    found, wanted = losses(trained / name), losses(trained / "alone")

    np.testing.assert_allclose(found, wanted, rtol=0.02)
    assert not np.allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["fsdp", "1f1b"])
def test_the_model_is_that_of_one_process(trained, name):
    rows = np.random.default_rng(5).normal(5.0, 3.0, (100, parallel_cases.D))
    found, wanted = (load_network(trained / n / "model.tar.gz") for n in (name, "alone"))

    np.testing.assert_allclose(found.scores(rows), wanted.scores(rows), atol=1e-5)
    assert found.threshold == pytest.approx(wanted.threshold, abs=1e-5)


def test_four_shards_go_on_in_one_process(trained):
    """The case ``short`` stopped after an epoch on four processes; its checkpoint is in shards."""
    shutil.copytree(trained / "short", trained / "resumed")
    (trained / "resumed" / "model.tar.gz").unlink()
    job = job_of(trained, "alone", processes=1)

    run_job(replace(job, folder=trained / "resumed"))

    np.testing.assert_allclose(losses(trained / "resumed"), losses(trained / "alone"), rtol=2e-6)


def test_a_checkpoint_inside_an_epoch_changes_nothing(alone):
    job = job_of(alone, "alone", processes=1)
    often = replace(job, folder=alone / "often", training=replace(job.training, checkpoint_steps=5))
    run_job(often)

    assert len(list((alone / "often" / "checkpoints").iterdir())) <= 3
    np.testing.assert_array_equal(losses(alone / "often"), losses(alone / "alone"))


def test_patience_ends_training_and_the_best_epoch_is_kept(alone):
    job = job_of(alone, "alone", processes=1)
    hasty = replace(job.training, epochs=40, learning_rate=0.03, patience=2)
    run_job(replace(job, folder=alone / "hasty", training=hasty))

    found = losses(alone / "hasty")[:, 1]
    best = int(found.argmin())
    assert len(found) == best + 3 < 40
    assert load_network(alone / "hasty" / "model.tar.gz").metrics["best_epoch"] == best


def test_a_rate_too_high_is_one_line(alone):
    job = job_of(alone, "alone", processes=1)
    wild = replace(job.training, learning_rate=1e30, clip_norm=0.0)

    with pytest.raises(TrainError, match=r"loss is not finite after epoch 0 .* lower it"):
        run_job(replace(job, folder=alone / "wild", training=wild))


def test_impossible_settings_are_refused_before_a_process_starts(alone):
    job = job_of(alone, "1f1b", processes=2)
    odd = replace(job, folder=alone / "odd", training=replace(job.training, batch_size=30))

    with pytest.raises(ConfigError, match="set batch_size to 28"):
        launch(odd, environment=os.environ)
    assert not (alone / "odd").exists()


# Processes that are lost


def long_job(folder: Path, name: str) -> NetworkJob:
    job = job_of(folder, "ddp", processes=2)
    # so few epochs at so low a rate that rounding does not grow into another path
    training = replace(
        job.training,
        epochs=8,
        learning_rate=1e-3,
        patience=8,
        max_restarts=1,
        checkpoint_steps=5,
    )
    return replace(job, folder=folder / name, training=training)


def start(job: NetworkJob) -> subprocess.Popen[bytes]:
    job.folder.mkdir()
    command = [sys.executable, "-c", LAUNCH, str(write_job(job))]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def wait_until(is_true, *, timeout_s: float = 240.0) -> None:
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    texts = (t.read_text() for t in tasks.glob("*/children")) if tasks.exists() else ()
    return [int(word) for text in texts for word in text.split()]


def workers(launcher: int) -> tuple[int, list[int]]:
    (agent,) = children(launcher)
    found = [
        pid for pid in children(agent) if b"worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return agent, found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_killed_worker_goes_on_to_the_same_losses(alone):
    job = long_job(alone, "killed")
    launcher = start(job)
    wait_until(lambda: len(read_history(job.folder)) >= 1)
    _, (victim, *_) = workers(launcher.pid)
    os.kill(victim, signal.SIGKILL)
    assert launcher.wait(timeout=900) == 0

    unbroken = replace(
        job_of(alone, "alone", processes=1), training=job.training, folder=alone / "unbroken"
    )
    run_job(unbroken)
    np.testing.assert_allclose(losses(job.folder), losses(alone / "unbroken"), rtol=1e-5)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_launcher(alone, how):
    job = long_job(alone, f"ended-{how.name}")
    job = replace(job, training=replace(job.training, epochs=10_000, patience=10_000))
    launcher = start(job)
    wait_until(lambda: len(read_history(job.folder)) >= 1)
    agent, found = workers(launcher.pid)
    assert len(found) == 2

    launcher.send_signal(how)
    launcher.communicate(timeout=240)

    wait_until(lambda: all(is_gone(pid) for pid in (agent, *found)))


def test_the_error_of_a_worker_is_the_launchers(alone):
    job = job_of(alone, "ddp", processes=2)
    broken = replace(
        job,
        folder=alone / "broken",
        train=(alone / "absent.recordio",),
    )

    with pytest.raises(TrainError, match=r"absent.recordio cannot be read: No such file .*log"):
        launch(broken, environment=os.environ)
