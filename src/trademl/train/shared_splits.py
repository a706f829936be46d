"""Splits in memory that several processes map: copied once, freed when the last of them ends."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from trademl.etl.dataset import Split

Layout = dict[str, dict[str, Any]]  # split -> column -> where its array lies and what it is

_ALIGNMENT = 64  # bytes, of each array: one cache line


class SharedSplits:
    """Splits copied into one anonymous file in memory.

    Attributes
    ----------
    fd : int
        Descriptor of the file, for a child process to inherit.
    layout : dict
        As JSON can hold it; with the file it gives the splits back: `map_splits`.
    """

    def __init__(self, splits: Mapping[str, Split]) -> None:
        self.layout: Layout = {name: {} for name in splits}
        n_bytes = 0
        for name, split in splits.items():
            for column, array in vars(split).items():
                self.layout[name][column] = (n_bytes, array.dtype.str, array.shape)
                n_bytes += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        self.fd = os.memfd_create("trademl-splits")
        os.truncate(self.fd, max(n_bytes, 1))
        with mmap.mmap(self.fd, 0) as memory:
            for name, split in splits.items():
                for column, array in vars(split).items():
                    _array(memory, *self.layout[name][column])[...] = array

    def close(self) -> None:
        """Let go of the file; the memory is freed when no process maps it any more."""
        os.close(self.fd)


def map_splits(fd: int, layout: Layout) -> dict[str, Split]:
    """Return the splits of a `SharedSplits`, read-only and without a copy."""
    memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    return {
        name: Split(**{f.name: _array(memory, *columns[f.name]) for f in fields(Split)})
        for name, columns in layout.items()
    }


def _array(memory: mmap.mmap, offset: int, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
    n = int(np.prod(shape))
    return np.frombuffer(memory, dtype, count=n, offset=offset).reshape(shape)
