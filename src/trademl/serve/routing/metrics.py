"""What a route counts, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from trademl.serve.counters import BOUNDS_S, Histogram
from trademl.serve.metrics import CONTENT_TYPE
from trademl.serve.routing.breaker import Standing
from trademl.serve.routing.exchange import HedgeBudget
from trademl.serve.routing.region import Region

__all__ = ["CONTENT_TYPE", "exposition"]

_STANDINGS: tuple[Standing, ...] = ("closed", "half open", "open")


def exposition(
    regions: Sequence[Region],
    budget: HedgeBudget,
    n_without_region: int,
    refused: Mapping[int, int],
    now_s: float,
) -> bytes:
    """Return everything that is measured; names of regions need no escaping."""
    by_region: dict[tuple[str, str, str], list[float]] = {
        ("region_up", "gauge", "Whether health checks succeed."): [r.is_up for r in regions],
        ("region_breaker", "gauge", "0 closed, 1 half open, 2 open."): [
            _STANDINGS.index(r.breaker.standing) for r in regions
        ],
        ("region_in_flight", "gauge", "Requests that a region has not answered."): [
            r.in_flight for r in regions
        ],
        ("region_cost_seconds", "gauge", "Peak EWMA of the latency."): [
            r.latency.value_s(now_s) for r in regions
        ],
        ("region_failures_total", "counter", "Requests that a region failed."): [
            r.counters.n_failures for r in regions
        ],
        ("region_given_up_total", "counter", "Requests answered before by another, or too late."): [
            r.counters.n_given_up for r in regions
        ],
        ("region_health_failures_total", "counter", "Health checks that failed."): [
            r.counters.n_health_failures for r in regions
        ],
    }
    lines: list[str] = []
    for (name, kind, meaning), values in by_region.items():
        lines += _head(name, kind, meaning)
        lines += [
            f'trademl_route_{name}{{region="{region.name}"}} {float(value):.9g}'
            for region, value in zip(regions, values, strict=True)
        ]
    for name, meaning, value in (
        ("hedges_total", "Second questions.", budget.n_hedges),
        ("hedge_wins_total", "Answers by another region than the one asked first.", budget.n_wins),
        ("no_region_total", "Requests that no region answered.", n_without_region),
    ):
        lines += [*_head(name, "counter", meaning), f"trademl_route_{name} {value}"]
    lines += _head("refused_requests_total", "counter", "Requests answered with an error.")
    lines += [
        f'trademl_route_refused_requests_total{{status="{status}"}} {count}'
        for status, count in refused.items()
    ]
    lines += _head("region_latency_seconds", "histogram", "Of answers, by region.")
    for region in regions:
        lines += _histogram(region.name, region.counters.latency)
    return "\n".join([*lines, ""]).encode()


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP trademl_route_{name} {meaning}", f"# TYPE trademl_route_{name} {kind}"]


def _histogram(region: str, histogram: Histogram) -> Iterator[str]:
    name = "trademl_route_region_latency_seconds"
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
        yield f'{name}_bucket{{region="{region}",le="{bound}"}} {count}'
    yield f'{name}_sum{{region="{region}"}} {histogram.sum_s:.9g}'
    yield f'{name}_count{{region="{region}"}} {histogram.n}'
