"""What makes training repeatable: one source of randomness for each purpose."""

from __future__ import annotations

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
    LAYOUT = 6
    VARIANT = 7


def generator(seed: int, stream: Stream, *numbers: int) -> np.random.Generator:
    """Return a generator that depends on seed, purpose and ``numbers`` (an epoch) alone."""
    return np.random.default_rng([seed, int(stream), *numbers])
