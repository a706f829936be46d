"""Chronological splits, purged by label interval and embargoed.

Shape letter: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError

MIN_ROWS = 20  # of a split


class Part(IntEnum):
    """Where a row went."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    PURGED = 3
    EMBARGOED = 4


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """Shares of a chronological split.

    Parameters
    ----------
    train, validation : float
        Shares of the rows, by time; the rest is test.
    embargo : float
        Gap after each boundary, as a share of the span of the rows.
    """

    train: float = 0.70
    validation: float = 0.15
    embargo: float = 0.01

    def __post_init__(self) -> None:
        if not (self.train > 0 and self.validation > 0 and self.train + self.validation < 1):
            raise ValueError(
                f"train is {self.train} and validation {self.validation}, expected both above 0 "
                "and less than 1 together"
            )
        if not 0 <= self.embargo < 0.5:
            raise ValueError(f"embargo is {self.embargo}, expected 0 or more and less than 0.5")


def chronological_split(
    as_of_N: NDArray[np.int64],
    start_N: NDArray[np.int64],
    exit_N: NDArray[np.int64],
    config: SplitConfig,
) -> NDArray[np.int8]:
    """Return the `Part` of each row.

    Rows are cut by time; a row decided within the embargo after a boundary is left out; then a
    row of an earlier part whose interval reaches into that of any row of a later part is purged.

    Parameters
    ----------
    as_of_N : ndarray of int64, shape (N,)
        When each row was decided, UTC ns, never decreasing.
    start_N, exit_N : ndarray of int64, shape (N,)
        The interval that each row stands for: as-of minus longest lookback, to exit.

    Raises
    ------
    DataError
        If fewer than 20 rows are left in a part.

    Notes
    -----
    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", section 7.4.
    """
    n = len(as_of_N)
    if n == 0:
        raise DataError("no row has a full history and a label: there is nothing to split")
    cuts = [int(config.train * n), int((config.train + config.validation) * n)]
    part_N = np.zeros(n, np.int8)
    part_N[cuts[0] :] = Part.VALIDATION
    part_N[cuts[1] :] = Part.TEST
    embargo_ns = int(config.embargo * (as_of_N[-1] - as_of_N[0]))
    for cut in cuts:
        boundary_ns = as_of_N[min(cut, n - 1)]
        late = (np.arange(n) >= cut) & (as_of_N < boundary_ns + embargo_ns)
        part_N[late] = Part.EMBARGOED
    for later in (Part.TEST, Part.VALIDATION):
        if (part_N == later).any():
            first_ns = start_N[part_N == later].min()
            part_N[(part_N < later) & (exit_N >= first_ns)] = Part.PURGED
    _check_sizes(part_N)
    return part_N


def _check_sizes(part_N: NDArray[np.int8]) -> None:
    count = {part: int((part_N == part).sum()) for part in Part}
    for part in (Part.TRAIN, Part.VALIDATION, Part.TEST):
        if count[part] < MIN_ROWS:
            raise DataError(
                f"too few rows to split: {len(part_N)} rows leave {count[part]} for "
                f"{part.name.lower()} after {count[Part.PURGED]} purged and "
                f"{count[Part.EMBARGOED]} embargoed, expected at least {MIN_ROWS}; give a longer "
                "recording, or lower features.n_lags or orders.time_limit_s"
            )
