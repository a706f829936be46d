"""How long a step takes and how much memory it needs, measured."""

from __future__ import annotations

import ctypes
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from trademl.train.parallel.loop import Trainer

_WARM_UP = 2


@dataclass(frozen=True)
class MeasuredStep:
    """A step of a run.

    Parameters
    ----------
    step_s : float
        Median over steps, of the first process.
    peak_bytes : int, optional
        Most memory that any process held at once beyond what it held before the network was made;
        None where the system does not tell.
    """

    step_s: float
    peak_bytes: int | None


def measure_steps(trainer: Trainer, n_steps: int) -> MeasuredStep:
    """Take steps and measure them; every process of the world must call it."""
    world = trainer.world
    seconds = []
    with trainer.train.opened() as batches:
        for _ in range(_WARM_UP):
            trainer.step(next(batches))
        give_back(world.device)
        reset_peak(world.device)
        held = held_bytes(world.device)
        for _ in range(n_steps):
            batch = next(batches)
            world.wait()
            began = time.perf_counter()
            trainer.step(batch)
            world.wait()
            seconds.append(time.perf_counter() - began)
    peak = peak_bytes(world.device)
    above = None if peak is None or held is None else peak - held
    found = _state_bytes(trainer, above)
    most = None if found is None else int(world.largest(found))
    return MeasuredStep(statistics.median(seconds), most)


def _state_bytes(trainer: Trainer, above: int | None) -> int | None:
    """Return the bytes of weights, gradients and moments, and what a step held beyond them."""
    if above is None:
        return None
    layers, moments = trainer.technique.layers, trainer.optimizer.state
    held = sum(_local_bytes(p) for p in layers.parameters())
    held += sum(_local_bytes(p.grad) for p in layers.parameters() if p.grad is not None)
    held += sum(
        _local_bytes(value)
        for state in moments.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    return held + above


def _local_bytes(tensor: torch.Tensor) -> int:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return int(local.numel()) * local.element_size()


def give_back(device: torch.device) -> None:
    """Hand freed memory back to the system, so that what is held is what is in use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # not glibc
        return


def reset_peak(device: torch.device) -> None:
    """Begin to watch the most memory that this process holds."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident set, Linux
    except OSError:
        return


def held_bytes(device: torch.device) -> int | None:
    """Return the memory that this process holds now; None where the system does not tell."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else _status("VmRSS")


def peak_bytes(device: torch.device) -> int | None:
    """Return the most memory held since `reset_peak`; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None
