"""What the server counts: plain numbers that the event loop adds to, read by whoever shows them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

# seconds; the last bucket has no upper bound
BOUNDS_S = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0),
)


@dataclass
class Histogram:
    """Counts by upper bound, and the sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    @property
    def n(self) -> int:
        return sum(self.counts)


@dataclass
class StrategyCounters:
    """What is counted of one strategy; tiers by their number on its ladder."""

    tiers: tuple[str, ...]
    latency: list[Histogram] = field(init=False)
    queue: Histogram = field(default_factory=Histogram)
    n_rows: int = 0
    n_stale: int = 0
    n_cache_hits: int = 0
    n_cache_lookups: int = 0
    n_shared: int = 0
    n_failures: int = 0
    n_swaps: int = 0
    n_swaps_refused: int = 0
    n_ledger_away: int = 0
    refused: Counter[int] = field(default_factory=Counter)  # answers that are errors, by status
    tier_changes: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.latency = [Histogram() for _ in self.tiers]

    def answer(self, tier: int, seconds: float, queue_s: float) -> None:
        """Count a decision: from arrival to answer, and of that before it was computed."""
        # both histograms in one step: a third of the time of two calls
        latency, queue = self.latency[tier], self.queue
        latency.counts[bisect_left(BOUNDS_S, seconds)] += 1
        latency.sum_s += seconds
        queue.counts[bisect_left(BOUNDS_S, queue_s)] += 1
        queue.sum_s += queue_s

    def change_tier(self, old: str, new: str) -> None:
        """Count a step on the ladder."""
        self.tier_changes[old, new] = self.tier_changes.get((old, new), 0) + 1


def by_tier(counters: StrategyCounters) -> Iterable[tuple[str, Histogram]]:
    """Yield each tier's name once, with the histograms of equal names added up."""
    for tier in dict.fromkeys(counters.tiers):
        whole = Histogram()
        for name, part in zip(counters.tiers, counters.latency, strict=True):
            if name == tier:
                whole.counts = [a + b for a, b in zip(whole.counts, part.counts, strict=True)]
                whole.sum_s += part.sum_s
        yield tier, whole
