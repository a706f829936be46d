"""Purged folds: many pairs of training and test rows from one history.

Shape letters: N rows, G groups, F folds, P paths.

In every fold no training row's interval, from the oldest price that it reads to its exit, overlaps
that of a test row. What separates them is counted in the fold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.etl.intervals import Times, check_intervals, overlaps_any
from trademl.market.quotes import NS_PER_S

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows to train on and rows to test on.

    Parameters
    ----------
    train_rows, test_rows : ndarray of int64
        Row numbers, increasing.
    n_purged : int
        Rows left out of training because their interval overlaps a test row's.
    n_embargoed : int
        Rows left out of training because they lie within the embargo, and for no other reason.
    """

    train_rows: Rows
    test_rows: Rows
    n_purged: int
    n_embargoed: int


def walk_forward(
    as_of_N: Times,
    start_N: Times,
    exit_N: Times,
    *,
    n_train: int,
    n_test: int,
    anchored: bool = False,
    embargo: float = 0.01,
) -> Iterator[Fold]:
    """Return folds that train on the past and test on what came next, again and again.

    Every row after the first ``n_train`` is tested once, in blocks of ``n_test`` rows; the last
    block may be shorter.

    Parameters
    ----------
    as_of_N : ndarray of int64, shape (N,)
        When each row was decided, UTC ns, never decreasing.
    start_N, exit_N : ndarray of int64, shape (N,)
        The interval that each row stands for: as-of minus longest lookback, to exit.
    n_train : int
        Rows before each test block, of which those purged and embargoed are left out.
    n_test : int
        Rows of a test block.
    anchored : bool
        Train on everything before the block: the window grows and does not roll.
    embargo : float
        Gap between the last exit that training knows and the first price that a test row reads,
        as a share of the span of the rows. It is taken from the training rows.

    Raises
    ------
    DataError
        If the rows are out of order or fewer than a fold needs, or no training row is left.
    ValueError
        If a setting is out of range.

    Notes
    -----
    Rows are counted, and time is not: a window of a fixed duration is empty after a closed market;
    `walk_forward_by_time` has those.

    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", section 11.5.

    Examples
    --------
    >>> at = np.arange(6) * 10
    >>> for fold in walk_forward(at, at, at + 1, n_train=3, n_test=2, embargo=0):
    ...     print(fold.train_rows, fold.test_rows)
    [0 1 2] [3 4]
    [2 3 4] [5]
    """
    if n_train < 1 or n_test < 1:
        raise ValueError(f"n_train is {n_train} and n_test {n_test}, expected at least 1 of each")
    embargo_ns = _embargo_ns(as_of_N, embargo)
    check_intervals(as_of_N, start_N, exit_N)
    if len(as_of_N) <= n_train:
        raise DataError(f"{len(as_of_N)} rows, expected more than the {n_train} of n_train")

    def folds() -> Iterator[Fold]:
        for first in range(n_train, len(as_of_N), n_test):
            oldest = 0 if anchored else first - n_train
            stop = min(first + n_test, len(as_of_N))
            yield _checked(_past_and_next(start_N, exit_N, oldest, first, stop, embargo_ns))

    return folds()


def walk_forward_by_time(
    as_of_N: Times,
    start_N: Times,
    exit_N: Times,
    *,
    train_ns: int,
    test_ns: int,
    anchored: bool = False,
    embargo: float = 0.01,
) -> Iterator[Fold]:
    """Return folds as `walk_forward` does, of fixed durations by the clock.

    A block in which no row was decided is left out. Where a market was closed for long a fold may
    have no training row left: its ``train_rows`` are empty.

    Parameters
    ----------
    train_ns, test_ns : int
        Durations, above 0; the first block begins ``train_ns`` after the first row.

    Raises
    ------
    DataError
        If the rows are out of order or none comes after the first ``train_ns``.
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> at = np.array([0, 10, 20, 30, 70])
    >>> for fold in walk_forward_by_time(at, at, at + 1, train_ns=20, test_ns=20, embargo=0):
    ...     print(fold.train_rows, fold.test_rows)
    [0 1] [2 3]
    [] [4]
    """
    if train_ns < 1 or test_ns < 1:
        raise ValueError(f"train_ns is {train_ns} and test_ns {test_ns}, expected above 0")
    embargo_ns = _embargo_ns(as_of_N, embargo)
    check_intervals(as_of_N, start_N, exit_N)
    if not len(as_of_N) or as_of_N[-1] - as_of_N[0] < train_ns:
        raise DataError(
            f"the rows span less than the {train_ns / NS_PER_S:g} s to train on before the first "
            "block: give more rows or train on less"
        )

    def folds() -> Iterator[Fold]:
        for begin_ns in range(int(as_of_N[0]) + train_ns, int(as_of_N[-1]) + 1, test_ns):
            first, stop = np.searchsorted(as_of_N, (begin_ns, begin_ns + test_ns)).tolist()
            oldest = 0 if anchored else int(np.searchsorted(as_of_N, begin_ns - train_ns))
            if first < stop:
                yield _past_and_next(start_N, exit_N, oldest, first, stop, embargo_ns)

    return folds()


def _past_and_next(
    start_N: Times, exit_N: Times, oldest: int, first: int, stop: int, embargo_ns: int
) -> Fold:
    """Return the fold that trains on rows before ``first`` and tests on those from it on."""
    # Embargo and purge look one way: a test row comes after every training row.
    first_read, exit_past = start_N[first:stop].min(), exit_N[oldest:first]
    purged = exit_past >= first_read
    embargoed = ~purged & (exit_past >= first_read - embargo_ns)
    train_rows = oldest + np.flatnonzero(~(purged | embargoed))
    return Fold(train_rows, np.arange(first, stop), int(purged.sum()), int(embargoed.sum()))


def combinatorial_purged(
    as_of_N: Times,
    start_N: Times,
    exit_N: Times,
    *,
    n_groups: int = 6,
    n_test_groups: int = 2,
    embargo: float = 0.01,
) -> Iterator[Fold]:
    """Return the folds of combinatorial purged cross-validation.

    The rows are cut into ``n_groups`` of consecutive rows; each choice of ``n_test_groups`` of
    them is a fold, so that there are C(G, k) folds. Each row is tested in C(G - 1, k - 1) of them,
    which is the number of whole histories that `backtest_paths` puts together.

    Parameters
    ----------
    as_of_N : ndarray of int64, shape (N,)
        When each row was decided, UTC ns, never decreasing.
    start_N, exit_N : ndarray of int64, shape (N,)
        The interval that each row stands for: as-of minus longest lookback, to exit.
    n_groups, n_test_groups : int
        G and k, 1 <= k < G. One test group is purged k-fold cross-validation, with one path.
    embargo : float
        Gap after each test row's exit, as a share of the span of the rows, in which no training
        interval starts.

    Raises
    ------
    DataError
        If the rows are out of order or fewer than groups, or no training row is left in a fold.
    ValueError
        If a setting is out of range.

    Notes
    -----
    Training rows lie on both sides of a test block and are purged on both. A test row that is held
    long, over a closed market, purges all that it overlaps and no more.

    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", sections 7.4 and 12.4.

    Examples
    --------
    >>> at = np.arange(6) * 10
    >>> folds = list(combinatorial_purged(at, at, at + 1, n_groups=3, n_test_groups=2, embargo=0))
    >>> [fold.train_rows.tolist() for fold in folds]
    [[4, 5], [2, 3], [0, 1]]
    """
    if not 1 <= n_test_groups < n_groups:
        raise ValueError(
            f"n_test_groups is {n_test_groups} and n_groups {n_groups}, expected "
            "1 <= n_test_groups < n_groups"
        )
    embargo_ns = _embargo_ns(as_of_N, embargo)
    check_intervals(as_of_N, start_N, exit_N)
    if len(as_of_N) < n_groups:
        raise DataError(f"{len(as_of_N)} rows, expected at least one for each of {n_groups} groups")

    def folds() -> Iterator[Fold]:
        groups = np.array_split(np.arange(len(as_of_N)), n_groups)
        purged_GN = _overlaps_of_groups(start_N, exit_N, groups, 0)
        near_GN = _overlaps_of_groups(start_N, exit_N, groups, embargo_ns)
        for tested in map(list, combinations(range(n_groups), n_test_groups)):
            test_rows = np.concatenate([groups[group] for group in tested])
            purged_N, near_N = purged_GN[tested].any(axis=0), near_GN[tested].any(axis=0)
            # Each test row overlaps itself, so that what is counted here holds the test rows.
            n_purged = int(purged_N.sum())
            n_embargoed = int(near_N.sum()) - n_purged
            yield _fold(np.flatnonzero(~near_N), test_rows, n_purged - len(test_rows), n_embargoed)

    return folds()


def backtest_paths(
    folds: Sequence[Fold], scores: Sequence[NDArray[np.floating]]
) -> NDArray[np.float64]:
    """Return whole histories of out-of-sample scores, one a path.

    Parameters
    ----------
    folds : sequence of Fold
        All folds of one call; each row must be tested equally often.
    scores : sequence of ndarray
        For each fold, the scores of its ``test_rows`` by the model that it trained.

    Returns
    -------
    ndarray of float64, shape (P, N)
        Path ``p`` holds for each row the score of the fold that tested it as number ``p``, so that
        no score is used twice. With G groups, k of them tested, P is C(G - 1, k - 1).

    Raises
    ------
    DataError
        If a fold lacks a score, or rows are not tested equally often.

    Notes
    -----
    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", section 12.3.
    """
    _check_scores(folds, scores)
    n_rows = max(int(fold.test_rows[-1]) for fold in folds) + 1
    seen_N = np.zeros(n_rows, np.int64)
    for fold in folds:
        seen_N[fold.test_rows] += 1
    if (uneven := seen_N != seen_N[0]).any():
        row = int(uneven.argmax())
        raise DataError(
            f"row {row} is tested {seen_N[row]} times and row 0 {seen_N[0]} times: paths need all "
            "folds of one combinatorial_purged, and every row tested"
        )
    path_PN = np.empty((int(seen_N[0]), n_rows))
    seen_N[:] = 0
    for fold, score in zip(folds, scores, strict=True):
        path_PN[seen_N[fold.test_rows], fold.test_rows] = score
        seen_N[fold.test_rows] += 1
    return path_PN


def _overlaps_of_groups(
    start_N: Times, exit_N: Times, groups: Sequence[Rows], extra_ns: int
) -> NDArray[np.bool_]:
    """Return which rows overlap a group whose exits come ``extra_ns`` later, shape (G, N)."""
    return np.stack(
        [overlaps_any(start_N, exit_N, start_N[of], exit_N[of] + extra_ns) for of in groups]
    )


def _embargo_ns(as_of_N: Times, embargo: float) -> int:
    if not 0 <= embargo < 1:
        raise ValueError(f"embargo is {embargo}, expected 0 or more and less than 1")
    return int(embargo * (as_of_N[-1] - as_of_N[0])) if len(as_of_N) else 0


def _fold(train_rows: Rows, test_rows: Rows, n_purged: int, n_embargoed: int) -> Fold:
    return _checked(Fold(train_rows, test_rows, n_purged, n_embargoed))


def _checked(fold: Fold) -> Fold:
    if not len(fold.train_rows):
        raise DataError(
            f"no row is left to train on for the test rows {fold.test_rows[0]} to "
            f"{fold.test_rows[-1]}: {fold.n_purged} are purged and {fold.n_embargoed} embargoed; "
            "give more rows or a smaller embargo, or test fewer at a time"
        )
    return fold


def _check_scores(folds: Sequence[Fold], scores: Sequence[NDArray[np.floating]]) -> None:
    if not folds or len(folds) != len(scores):
        raise DataError(f"{len(folds)} folds and {len(scores)} scores, expected as many, above 0")
    for number, (fold, score) in enumerate(zip(folds, scores, strict=True)):
        if score.shape != fold.test_rows.shape:
            raise DataError(
                f"scores of fold {number} have shape {score.shape}, expected "
                f"({len(fold.test_rows)},): one for each test row"
            )
