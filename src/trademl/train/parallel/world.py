"""The processes of a run: which one this is, its device, and what all must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """One process among ``size``; alone, it needs no process group and every answer is its own."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def sum(self, value: torch.Tensor) -> float:
        """Return the sum of every process's number, in float64."""
        total = value.detach().to(self.device, torch.float64, copy=True)
        if self.size > 1:
            dist.all_reduce(total)
        return float(total)

    def first_says(self, value: float) -> float:
        """Return the first process's number, so that a decision made of it is the same on all."""
        told = torch.tensor(value, device=self.device, dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(told, src=0)
        return float(told)

    def largest(self, value: float) -> float:
        """Return the largest of every process's numbers."""
        found = torch.tensor(value, device=self.device, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return float(found)

    def wait(self) -> None:
        """Return when every process got here."""
        if self.size > 1:
            self.sum(torch.zeros(()))


def alone(device: str | None = None) -> World:
    """Return the world of one process."""
    return World(
        0, 1, 0, torch.device(device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
    )


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started: over NCCL where there are GPUs, else over gloo."""
    local_rank = dist.get_node_local_rank(fallback_rank=0)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local_rank, device)
    finally:
        dist.destroy_process_group()
