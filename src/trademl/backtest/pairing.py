"""Which trade of one side is which of the other: by order, by decision, or nearest in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from trademl.backtest.trade_rows import TradeRow

NEIGHBOURS = 8  # of each trade that are looked at in either direction
Pair = tuple[int, int]


def paired(
    one: Sequence[TradeRow], other: Sequence[TradeRow], tolerance_ns: int
) -> tuple[list[Pair], list[int], list[int]]:
    """Return pairs of places, and the places on either side that have no partner.

    Partners have one side and begin within the tolerance of each other. Those of one order come
    first, then those of one moment of decision, then the nearest in time.
    """
    pairs: list[Pair] = []
    free_one, free_other = set(range(len(one))), set(range(len(other)))
    keys: tuple[Callable[[TradeRow], Hashable | None], ...] = (
        lambda row: row.order_id,
        lambda row: row.decided_at_ns,
    )
    for key in keys:
        for i, j in _by_key(one, other, key, tolerance_ns):
            if i in free_one and j in free_other:
                _take(pairs, free_one, free_other, i, j)
    for i, j in _by_time(one, other, sorted(free_one), sorted(free_other), tolerance_ns):
        if i in free_one and j in free_other:
            _take(pairs, free_one, free_other, i, j)
    return sorted(pairs), sorted(free_one), sorted(free_other)


def _take(pairs: list[Pair], free_one: set[int], free_other: set[int], i: int, j: int) -> None:
    pairs.append((i, j))
    free_one.discard(i)
    free_other.discard(j)


def _by_key(
    one: Sequence[TradeRow],
    other: Sequence[TradeRow],
    key: Callable[[TradeRow], Hashable | None],
    tolerance_ns: int,
) -> list[Pair]:
    places: dict[Hashable, list[int]] = defaultdict(list)
    for j, row in enumerate(other):
        if (found := key(row)) is not None:
            places[found].append(j)
    return [
        (i, j)
        for i, row in enumerate(one)
        if (found := key(row)) is not None
        for j in places.get(found, ())
        if row.side == other[j].side and abs(row.seen_ns - other[j].seen_ns) <= tolerance_ns
    ]


def _by_time(
    one: Sequence[TradeRow],
    other: Sequence[TradeRow],
    of_one: list[int],
    of_other: list[int],
    tolerance_ns: int,
) -> list[Pair]:
    """Return pairs that could be, nearest first."""
    found: list[tuple[int, int, int]] = []
    for side in (1, -1):
        places = sorted(
            (j for j in of_other if other[j].side == side), key=lambda j: other[j].seen_ns
        )
        times = np.array([other[j].seen_ns for j in places], np.int64)
        for i in (i for i in of_one if one[i].side == side):
            at = int(np.searchsorted(times, one[i].seen_ns))
            near = range(max(0, at - NEIGHBOURS), min(len(places), at + NEIGHBOURS))
            found.extend((abs(int(times[n]) - one[i].seen_ns), i, places[n]) for n in near)
    return [(i, j) for apart, i, j in sorted(found) if apart <= tolerance_ns]
