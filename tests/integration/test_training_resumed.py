"""Training killed and gone on with ends with the bits of an unbroken run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from trademl.errors import StoreError
from trademl.etl.dataset import Split
from trademl.train.checkpoints import FileCheckpoint
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.linear_learner import fit, fit_together
from trademl.train.model import save_model
from trademl.train.observing import TrainingState

JOB = {
    "predictor_type": "binary_classifier",
    "epochs": "8",
    "mini_batch_size": "50",
    "num_models": "5",
    "early_stopping_patience": "3",
    "binary_classifier_model_selection_criteria": "f_beta",
}
SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_training_resumed as job
folder = Path(sys.argv[1])

class Slowed:
    def started(self, *_): pass
    def finished(self, *_): pass
    def epoch_ended(self, report):
        {at_epoch_end}

job.train(folder, observer=Slowed(), should_stop=lambda: os.path.exists(folder / "stop"))
"""


def make_split(seed: int, n: int = 900) -> Split:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 6)).astype(np.float32)
    label = (features[:, 0] + rng.normal(size=n) > 0).astype(np.float32)
    at = np.arange(n, dtype=np.int64)
    return Split(features, label, at, at, at + 1, np.zeros(n))


def train(folder: Path, *, seed: int = 4, checkpoint: bool = True, **options: object) -> bytes:
    """Train, keep the model in ``folder``, and return its bytes."""
    found = fit(
        make_split(1),
        make_split(2),
        LinearLearnerParameters.from_strings(JOB),
        seed=seed,
        checkpoint=FileCheckpoint(folder / "state.bin") if checkpoint else None,
        **options,
    )
    save_model(found.model, folder / "model.tar.gz")
    return (folder / "model.tar.gz").read_bytes()


def start(folder: Path, at_epoch_end: str) -> subprocess.Popen[bytes]:
    script = SCRIPT.format(here=str(Path(__file__).parent), at_epoch_end=at_epoch_end)
    return subprocess.Popen([sys.executable, "-c", script, str(folder)])


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> bytes:
    return train(tmp_path_factory.mktemp("unbroken"), checkpoint=False)


@pytest.mark.parametrize("epoch", [0, 2, 5])
def test_killed_it_goes_on_to_the_same_bits(tmp_path, unbroken, epoch):
    # the process kills itself as nothing else could: no handler, no flush, no goodbye
    process = start(tmp_path, f"report.epoch == {epoch} and os.kill(os.getpid(), signal.SIGKILL)")
    assert process.wait(300) == -signal.SIGKILL
    assert not (tmp_path / "model.tar.gz").exists()

    epochs = []
    found = train(tmp_path, observer=EpochList(epochs))

    assert epochs[0] == epoch  # the epoch whose end it did not live to save
    assert found == unbroken


def test_killed_from_outside_at_any_moment_it_goes_on_to_the_same_bits(tmp_path, unbroken):
    for _ in range(3):
        process = start(tmp_path, "import time; time.sleep(0.3)")
        wait_for(tmp_path / "state.bin", process)
        time.sleep(0.35)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(300)

    assert train(tmp_path) == unbroken


def test_stopped_with_a_signal_it_keeps_a_model_and_goes_on_later(tmp_path, unbroken):
    process = start(tmp_path, "(folder / 'stop').touch() if report.epoch == 1 else None")
    assert process.wait(300) == 0
    assert (tmp_path / "model.tar.gz").read_bytes() != unbroken
    (tmp_path / "stop").unlink()

    assert train(tmp_path) == unbroken


def test_a_finished_job_trains_no_epoch_again(tmp_path, unbroken):
    train(tmp_path)
    epochs: list[int] = []

    assert train(tmp_path, observer=EpochList(epochs)) == unbroken
    assert epochs == []


def test_candidates_together_go_on_together(tmp_path):
    jobs = [
        LinearLearnerParameters.from_strings({**JOB, "num_models": "1", **values})
        for values in ({}, {"epochs": "3"}, {"use_bias": "false", "learning_rate": "0.01"})
    ]
    splits = make_split(1), make_split(2)
    unbroken = fit_together(*splits, jobs, seed=0)
    calls = []
    checkpoint = FileCheckpoint(tmp_path / "state.bin")
    fit_together(
        *splits,
        jobs,
        seed=0,
        checkpoint=checkpoint,
        should_stop=lambda: calls.append(None) or len(calls) > 4,
    )

    found = fit_together(*splits, jobs, seed=0, checkpoint=checkpoint)

    for ours, theirs in zip(found, unbroken, strict=True):
        assert ours.model.weights_D.tobytes() == theirs.model.weights_D.tobytes()
        assert ours.history == theirs.history


def test_another_jobs_checkpoint_is_refused(tmp_path):
    train(tmp_path)

    with pytest.raises(StoreError, match="saved with other data, hyperparameters, seed or code"):
        train(tmp_path, seed=5)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-7], lambda b: b[:90] + b"x" + b[91:], bytes.upper]
)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    train(tmp_path)
    path = tmp_path / "state.bin"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(StoreError, match="is damaged: delete it, and training begins anew"):
        train(tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    checkpoint = FileCheckpoint(tmp_path / "file" / "state.bin")

    with pytest.raises(StoreError, match="choose another"):
        checkpoint.save(TrainingState({}))


class EpochList:
    """An observer that notes the numbers of the epochs."""

    def __init__(self, epochs: list[int]) -> None:
        self._epochs = epochs

    def started(self, *_: object) -> None: ...

    def finished(self, *_: object) -> None: ...

    def epoch_ended(self, report) -> None:
        self._epochs.append(report.epoch)
