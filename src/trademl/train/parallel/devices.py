"""What a device can hold and do: asked of the system, or given for a machine that is not here."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from trademl.errors import TrainError

_USABLE = 0.9  # the rest is for the runtime, buffers of communication, and gaps between tensors
_CPU_FLOPS_PER_CORE = 4e10
_GPU_FLOPS = {"H200": 4e14, "H100": 4e14, "A100": 1.5e14, "L40": 9e13, "L4": 5e13, "T4": 3e13}
_OTHER_GPU_FLOPS = 2e13
_CPU_BYTES_PER_S = 1e9
_GPU_BYTES_PER_S = 1e11


@dataclass(frozen=True)
class Device:
    """One process's device.

    Parameters
    ----------
    name : str
    memory_bytes : int
        What a process may use of it.
    flops_per_s : float
        Sustained in matrix products of bfloat16 (GPU) or float32 (CPU); assumed by model where it
        was not measured.
    bytes_per_s : float
        Between two devices of a host; assumed.
    n_here : int
        Devices of this kind on this machine.
    """

    name: str
    memory_bytes: int
    flops_per_s: float
    bytes_per_s: float
    n_here: int


def device_here(n_processes: int) -> Device:
    """Return the device that each of ``n_processes`` would have on this machine."""
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        flops = next((f for n, f in _GPU_FLOPS.items() if n in found.name), _OTHER_GPU_FLOPS)
        usable = int(found.total_memory * _USABLE)
        return Device(found.name, usable, flops, _GPU_BYTES_PER_S, torch.cuda.device_count())
    cores = n_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return Device(
        name="CPU",
        memory_bytes=int(memory * _USABLE) // n_processes,
        flops_per_s=_CPU_FLOPS_PER_CORE * max(1.0, cores / n_processes),
        bytes_per_s=_CPU_BYTES_PER_S,
        n_here=max(cores, n_processes),
    )


def n_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_devices(n_processes: int) -> None:
    """Refuse more processes than GPUs, where there are GPUs.

    Raises
    ------
    TrainError
        The message says how many there are.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else n_processes
    if n_processes > n_gpus:
        raise TrainError(
            f"{n_processes} processes for {n_gpus} GPU{'s' * (n_gpus > 1)}: NCCL gives each "
            f"process one; set --nproc to at most {n_gpus}"
        )


def size_of(n_bytes: float) -> str:
    """Return a size for people."""
    for unit, one in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= one:
            return f"{n_bytes / one:.3g} {unit}"
    return f"{n_bytes:.0f} B"
