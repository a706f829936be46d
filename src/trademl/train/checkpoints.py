"""A training job's newest state in a file: complete and checked, or absent."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import StoreError
from trademl.etl.dataset import Split
from trademl.store.artifacts import storage_errors, write_atomically
from trademl.store.identity import code_version, digest_bytes
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.observing import TrainingState
from trademl.train.races import Best, EpochLog, Found, Runner

_MAGIC = b"trademl-checkpoint-1\n"
_FACTS = "facts"


class FileCheckpoint:
    """A `Checkpoint` in one file: a digest, then the state.

    Parameters
    ----------
    path : Path
        Its folder is made where it is missing. A write that is cut short leaves the state before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> TrainingState | None:
        """Return the state saved last, or None where there is no file.

        Raises
        ------
        StoreError
            If the file is damaged: its digest does not fit its content.
        """
        try:
            with storage_errors(self.path, "folder of checkpoints"):
                content = self.path.read_bytes()
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        digest, state = content[len(_MAGIC) : len(_MAGIC) + 64], content[len(_MAGIC) + 64 :]
        if not content.startswith(_MAGIC) or digest_bytes(state).encode() != digest:
            raise StoreError(f"{self.path} is damaged: delete it, and training begins anew")
        with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
            facts = json.loads(arrays[_FACTS].tobytes())
            return TrainingState(facts, {n: arrays[n] for n in arrays.files if n != _FACTS})

    def save(self, state: TrainingState) -> None:
        """Write a state in place of the one before.

        Raises
        ------
        StoreError
            If the disk is full or not writable.
        """
        facts = np.frombuffer(json.dumps(state.facts).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **{**state.arrays, _FACTS: facts})  # type: ignore[arg-type]
        content = buffer.getvalue()
        with storage_errors(self.path, "folder of checkpoints"):
            write_atomically(self.path, _MAGIC + digest_bytes(content).encode() + content)


def job_identity(
    train: Split,
    validation: Split | None,
    candidates: Sequence[LinearLearnerParameters],
    *,
    seed: int,
) -> str:
    """Return a digest of everything that decides how a job trains: data, settings and code."""
    digest = hashlib.sha256()
    settings = [{**asdict(p), "given": sorted(p.given)} for p in candidates]
    digest.update(json.dumps([settings, seed, code_version()], sort_keys=True).encode())
    for split in (train, validation):
        for array in (split.features_ND, split.label_N) if split else ():
            digest.update(str((array.shape, array.dtype)).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_identity(state: TrainingState, identity: str) -> None:
    """Refuse to go on with the state of another job.

    Raises
    ------
    StoreError
        If the state was saved with other data, hyperparameters, seed or code.
    """
    if state.facts["identity"] != identity:
        raise StoreError(
            "the checkpoint was saved with other data, hyperparameters, seed or code than these: "
            "delete it, or choose another folder of checkpoints"
        )


def runner_state(
    runners: Sequence[Runner],
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Return what JSON can hold of the runners, and their best weights."""
    facts = [
        {
            "idle": runner.idle,
            "is_done": runner.is_done,
            "failure": runner.failure,
            "history": [asdict(log) for log in runner.history],
            "best": None if runner.best is None else _best_facts(runner.best),
        }
        for runner in runners
    ]
    best = {f"best_{i}": r.best.theta_CP for i, r in enumerate(runners) if r.best is not None}
    return facts, best


def restore_runners(runners: Sequence[Runner], state: TrainingState) -> None:
    """Put runners where `runner_state` found them."""
    for i, (runner, facts) in enumerate(zip(runners, state.facts["runners"], strict=True)):
        runner.idle, runner.is_done = facts["idle"], facts["is_done"]
        runner.failure = facts["failure"]
        runner.history = [EpochLog(**log) for log in facts["history"]]
        if (best := facts["best"]) is not None:
            runner.best = _best(best, np.array(state.arrays[f"best_{i}"]))


def _best_facts(best: Best) -> dict[str, Any]:
    return {"epoch": best.epoch, "loss": best.found.loss, "rank": list(best.found.rank)}


def _best(facts: Mapping[str, Any], theta_CP: NDArray[np.float32]) -> Best:
    is_met, value = facts["rank"]
    return Best(facts["epoch"], Found(facts["loss"], (is_met, value)), theta_CP)
