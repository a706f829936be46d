"""Checkpoints that any number of processes can go on from, however the network was divided.

Written by ``torch.distributed.checkpoint``: every process writes what it holds under names that do
not depend on the division, and reads what it needs. A folder is complete or absent.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from trademl.errors import StoreError
from trademl.store.artifacts import storage_errors, write_atomically
from trademl.train.networks import Layers
from trademl.train.parallel.position import Position
from trademl.train.parallel.world import World

_POSITION = "position.json"
_OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True)
_KEPT = 2


class Checkpoints:
    """The checkpoints of one run, below a folder that every process can reach."""

    def __init__(self, folder: Path, world: World) -> None:
        self._folder = folder
        self._world = world

    def save(self, layers: Layers, optimizer: torch.optim.Optimizer, position: Position) -> None:
        """Write a checkpoint and remove all but the last two and the best; every process calls it.

        Raises
        ------
        StoreError
            If the disk is full or not writable.
        """
        final = self._of_step(position.step)
        part = final.with_name(f"{final.name}.part")
        with storage_errors(self._folder):
            if self._world.is_first:
                shutil.rmtree(part, ignore_errors=True)
            self._world.wait()
            self._write(_state(layers, optimizer), part)
            if self._world.is_first:
                write_atomically(part / _POSITION, msgspec.json.encode(position))
                shutil.rmtree(final, ignore_errors=True)
                part.rename(final)
                self._prune({position.best_step})
            self._world.wait()

    def _write(self, state: dict[str, Any], folder: Path) -> None:
        try:
            with _quiet():
                save(state, checkpoint_id=folder, no_dist=self._world.size == 1)
        except CheckpointException as error:
            what = str(next(iter(error.failures.values()))[0])
            raise StoreError(
                f"{folder} cannot be written ({what}): free some space and run again; the last "
                "checkpoint is kept"
            ) from error

    def latest(self) -> int | None:
        """Return the step of the newest complete checkpoint."""
        return max(self._steps(), default=None)

    def load(self, layers: Layers, optimizer: torch.optim.Optimizer, step: int) -> Position:
        """Put weights and moments back, and return where the run stood; every process calls it.

        Raises
        ------
        StoreError
            If the checkpoint is damaged, or of another network.
        """
        folder = self._of_step(step)
        state = _state(layers, optimizer)
        try:
            with _quiet():
                load(state, checkpoint_id=folder, no_dist=self._world.size == 1)
            position = msgspec.json.decode((folder / _POSITION).read_bytes(), type=Position)
        except (OSError, ValueError, RuntimeError, CheckpointException) as error:
            what = str(error).strip().splitlines()[-1]
            raise StoreError(
                f"{folder} cannot be gone on from ({what}): delete it, or the run's folder"
            ) from error
        set_state_dict(
            layers,
            optimizer,
            model_state_dict=state["network"],
            optim_state_dict=state["optimizer"],
            options=_OPTIONS,
        )
        return position

    def read_weights(self, step: int, network: Layers) -> dict[str, Tensor]:
        """Return the weights of a checkpoint as whole tensors; one process calls it, on its own."""
        state = {"network": network.state_dict()}
        with _quiet():
            load(state, checkpoint_id=self._of_step(step), no_dist=True)
        return state["network"]

    def _of_step(self, step: int) -> Path:
        return self._folder / f"step-{step:09d}"

    def _steps(self) -> list[int]:
        found = self._folder.glob(f"step-*/{_POSITION}")
        return sorted(
            int(path.parent.name.removeprefix("step-"))
            for path in found
            if path.parent.suffix != ".part"
        )

    def _prune(self, keep: Collection[int | None]) -> None:
        for step in self._steps()[:-_KEPT]:
            if step not in keep:
                shutil.rmtree(self._of_step(step), ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out torch's remark that one process works alone, which it was told to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _state(layers: Layers, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    network, moments = get_state_dict(layers, optimizer, options=_OPTIONS)
    return {"network": network, "optimizer": moments}
