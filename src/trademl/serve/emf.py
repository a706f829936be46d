"""What the server counted in a period, as CloudWatch reads it out of a log: embedded metrics.

One line is one JSON object (Amazon CloudWatch User Guide, "Embedded metric format specification").
Every worker writes its own; CloudWatch adds up counts, and keeps least and most of the rest.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trademl.serve.counters import BOUNDS_S, Histogram, StrategyCounters, by_tier
from trademl.serve.ladder import ABSTAIN

NAMESPACE = "trademl/serving"

_log = logging.getLogger(__name__)


class Reported(Protocol):
    """A strategy, as far as its figures go."""

    counters: StrategyCounters

    @property
    def level(self) -> int:
        """Tier that is tried first."""


class Reporter:
    """Logs what the strategies counted since it last did.

    Parameters
    ----------
    strategies : callable
        Returns those that are served now, by name.
    n_refused : callable
        Returns how many requests for no strategy were answered with an error.
    """

    def __init__(
        self,
        strategies: Callable[[], Mapping[str, Reported]],
        worker: int | None = None,
        wall_s: Callable[[], float] = time.time,
        *,
        n_refused: Callable[[], int] = lambda: 0,
    ) -> None:
        self._n_refused, self._n_refused_before = n_refused, 0
        self._strategies, self._worker, self._wall_s = strategies, worker, wall_s
        self._before: dict[str, Counted] = {}

    def report(self) -> None:
        """Log the period that ends now."""
        timestamp_ms = int(self._wall_s() * 1000)
        for name, strategy in self._strategies().items():
            now = count(strategy.counters)
            period = now.since(self._before.get(name))
            self._before[name] = now
            for line in metric_lines(name, period, strategy.level, timestamp_ms, self._worker):
                _log.info("", extra={"raw": line})
        self._report_refused(timestamp_ms)

    def _report_refused(self, timestamp_ms: int) -> None:
        """Log how many requests for no strategy were refused; nothing where there was none."""
        now, before = self._n_refused(), self._n_refused_before
        self._n_refused_before = now
        if now > before:
            line = _line({}, {"Refused": now - before}, timestamp_ms, _about(self._worker))
            _log.info("", extra={"raw": line})


@dataclass(frozen=True)
class Counted:
    """Everything that was counted of a strategy up to some moment."""

    counts: Mapping[str, int]
    tiers: Mapping[str, Histogram]

    def since(self, before: Counted | None) -> Counted:
        """Return what was counted after an earlier moment."""
        if before is None:
            return self
        counts = {name: n - before.counts[name] for name, n in self.counts.items()}
        tiers = {
            tier: _difference(now, before.tiers.get(tier, Histogram()))
            for tier, now in self.tiers.items()
        }
        return Counted(counts, tiers)


def count(counters: StrategyCounters) -> Counted:
    """Return what was counted of a strategy up to now."""
    counts = {
        "Rows": counters.n_rows,
        "Refused": sum(counters.refused.values()),
        "StaleInputs": counters.n_stale,
        "CacheHits": counters.n_cache_hits,
        "ModelFailures": counters.n_failures,
        "TierChanges": sum(counters.tier_changes.values()),
    }
    return Counted(counts, dict(by_tier(counters)))


def metric_lines(
    strategy: str, period: Counted, level: int, timestamp_ms: int, worker: int | None = None
) -> list[str]:
    """Return the lines of a strategy for a period: one of it as a whole, one of each tier in use.

    Parameters
    ----------
    period : Counted
        What was counted in the period.
    level : int
        Tier that is tried first; 0 is the biggest model.
    timestamp_ms : int
        End of the period, UTC.
    """
    whole = Histogram()
    for part in period.tiers.values():
        whole.counts = [a + b for a, b in zip(whole.counts, part.counts, strict=True)]
        whole.sum_s += part.sum_s
    abstained = period.tiers[ABSTAIN].n if ABSTAIN in period.tiers else 0
    values = {"Requests": whole.n, **period.counts, "Abstained": abstained, "Level": level}
    about = _about(worker)
    lines = [
        _line({"Strategy": strategy}, values | _times(whole), timestamp_ms, about),
    ]
    lines += [
        _line(
            {"Strategy": strategy, "Tier": tier},
            {"Requests": part.n} | _times(part),
            timestamp_ms,
            about,
        )
        for tier, part in period.tiers.items()
        if part.n
    ]
    return lines


def quantile_s(histogram: Histogram, share: float) -> float:
    """Return a time that at least a share of all were within: the bound of a bucket.

    Examples
    --------
    >>> times = Histogram()
    >>> for seconds in (0.0001, 0.0004, 0.03):
    ...     times.add(seconds)
    >>> quantile_s(times, 0.5), quantile_s(times, 0.99)
    (0.0005, 0.05)
    """
    wanted, seen = share * histogram.n, 0
    for bound, n in zip((*BOUNDS_S, BOUNDS_S[-1]), histogram.counts, strict=True):
        seen += n
        if seen >= wanted and seen:
            return bound
    return 0.0


def _about(worker: int | None) -> dict[str, int]:
    return {} if worker is None else {"Worker": worker}


def _difference(now: Histogram, before: Histogram) -> Histogram:
    counts = [a - b for a, b in zip(now.counts, before.counts, strict=True)]
    return Histogram(counts, now.sum_s - before.sum_s)


def _times(histogram: Histogram) -> dict[str, float]:
    """Return times of requests in milliseconds; none where there were no requests."""
    if not histogram.n:
        return {}
    return {
        "LatencyMean": round(histogram.sum_s / histogram.n * 1000, 4),
        "LatencyP50": quantile_s(histogram, 0.5) * 1000,
        "LatencyP99": quantile_s(histogram, 0.99) * 1000,
    }


def _line(
    dimensions: Mapping[str, str],
    values: Mapping[str, float],
    timestamp_ms: int,
    about: Mapping[str, Any],
) -> str:
    metrics: Sequence[dict[str, str]] = [{"Name": name, "Unit": _unit(name)} for name in values]
    directive = {
        "Namespace": NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": metrics,
    }  # fmt: skip
    meta = {"Timestamp": timestamp_ms, "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": meta, **dimensions, **about, **values}, separators=(",", ":"))


def _unit(name: str) -> str:
    if name.startswith("Latency"):
        return "Milliseconds"
    return "None" if name == "Level" else "Count"
