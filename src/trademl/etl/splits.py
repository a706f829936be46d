"""One split of a dataset's rows into training, validation and test.

Shape letter: N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl.intervals import check_intervals, overlaps_any

MIN_ROWS = 20  # of a split

Method = Literal["chronological", "random"]


class Part(IntEnum):
    """Where a row went."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    PURGED = 3
    EMBARGOED = 4


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """Shares of a split, and how rows are chosen.

    Parameters
    ----------
    train, validation : float
        Shares of the rows; the rest is test.
    embargo : float
        Gap after each boundary in time, as a share of the span of the rows.
    method : {"chronological", "random"}
        ``random`` shuffles, and purges nothing: see `random_split` for what that does to figures.
    seed : int
        Of the shuffle.
    """

    train: float = 0.70
    validation: float = 0.15
    embargo: float = 0.01
    method: Method = "chronological"
    seed: int = 7

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method is {self.method!r}, expected {' or '.join(get_args(Method))}")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, expected 0 or more")
        if not (self.train > 0 and self.validation > 0 and self.train + self.validation < 1):
            raise ValueError(
                f"train is {self.train} and validation {self.validation}, expected both above 0 "
                "and less than 1 together"
            )
        if not 0 <= self.embargo < 0.5:
            raise ValueError(f"embargo is {self.embargo}, expected 0 or more and less than 0.5")


def split_rows(
    as_of_N: NDArray[np.int64],
    start_N: NDArray[np.int64],
    exit_N: NDArray[np.int64],
    config: SplitConfig,
) -> NDArray[np.int8]:
    """Return the `Part` of each row by the configured method.

    Raises
    ------
    DataError
        As `chronological_split` and `random_split`.
    """
    if config.method == "random":
        return random_split(len(as_of_N), config)
    return chronological_split(as_of_N, start_N, exit_N, config)


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
        If fewer than 20 rows are left in a part, or rows are out of order.

    Notes
    -----
    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", section 7.4.
    """
    check_intervals(as_of_N, start_N, exit_N)
    n = len(as_of_N)
    part_N, cuts = _parts_in_order(n, config)
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


def random_split(n_rows: int, config: SplitConfig) -> NDArray[np.int8]:
    """Return the `Part` of each row of a shuffle; nothing is purged and nothing embargoed.

    Rows of one hour share most of what they read and often the exit that decides their label. A
    shuffle puts some of them in training and some in test, so that a model is asked what it has
    seen: its figures come out too good. It is here to compare with work that split this way.

    Raises
    ------
    DataError
        If fewer than 20 rows are left in a part.
    """
    part_N, _ = _parts_in_order(n_rows, config)
    _check_sizes(part_N)
    return np.random.default_rng(config.seed).permutation(part_N)


def split_warnings(
    part_N: NDArray[np.int8],
    start_N: NDArray[np.int64],
    exit_N: NDArray[np.int64],
    config: SplitConfig,
) -> list[str]:
    """Return what a reader of any figure of this split must be told, in sentences.

    Parameters
    ----------
    part_N : ndarray of int8, shape (N,)
        `Part` of each row, from `split_rows`.
    start_N, exit_N : ndarray of int64, shape (N,)
        The interval that each row stands for.
    """
    if config.method != "random":
        return []
    train = part_N == Part.TRAIN
    judged = (part_N == Part.VALIDATION) | (part_N == Part.TEST)
    leaked = overlaps_any(start_N[judged], exit_N[judged], start_N[train], exit_N[train])
    return [
        f"split.method is random: rows are shuffled and none is purged, and {int(leaked.sum())} of "
        f"{len(leaked)} validation and test rows overlap a training row in time, so every figure "
        "made from them will be too good; trust only the chronological split"
    ]


def _parts_in_order(n_rows: int, config: SplitConfig) -> tuple[NDArray[np.int8], list[int]]:
    """Return parts of the configured shares, one after the other, and where the last two begin."""
    if n_rows == 0:
        raise DataError("no row has a full history and a label: there is nothing to split")
    cuts = [int(config.train * n_rows), int((config.train + config.validation) * n_rows)]
    part_N = np.zeros(n_rows, np.int8)
    part_N[cuts[0] :] = Part.VALIDATION
    part_N[cuts[1] :] = Part.TEST
    return part_N, cuts


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
