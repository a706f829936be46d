"""What makes training repeatable: one source of randomness per purpose, one thread per sum."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """A purpose of randomness; each draws from a stream of its own, whatever the others drew."""

    SCALER = 0
    START = 1
    CALIBRATION = 2
    SHUFFLE = 3
    SAMPLER = 4
    BOOTSTRAP = 5


def generator(seed: int, stream: Stream, *numbers: int) -> np.random.Generator:
    """Return a generator that depends on seed, purpose and ``numbers`` (an epoch) alone."""
    return np.random.default_rng([seed, int(stream), *numbers])


class _Shared:
    """How many trainings hold torch to one thread right now, and what to restore after the last."""

    lock = threading.Lock()
    n_users = 0
    n_threads_before = 1


@contextmanager
def single_thread() -> Iterator[None]:
    """Hold torch to one thread per operation, so that a sum has one order; restore it at the end.

    Trials that train side by side share torch's setting: the first to enter saves it, the last to
    leave restores it.
    """
    import torch

    with _Shared.lock:
        if _Shared.n_users == 0:
            _Shared.n_threads_before = torch.get_num_threads()
        _Shared.n_users += 1
        torch.set_num_threads(1)  # by each thread: OpenMP keeps a count of its own in every one
    try:
        yield
    finally:
        with _Shared.lock:
            _Shared.n_users -= 1
            if _Shared.n_users == 0:
                torch.set_num_threads(_Shared.n_threads_before)
