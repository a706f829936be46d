"""What the server counts, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from trademl.serve.counters import BOUNDS_S, Histogram, by_tier
from trademl.serve.event_writer import EventWriter
from trademl.serve.live_strategy import LiveStrategy

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COUNTERS = (
    ("rows", "n_rows", "Feature rows read."),
    ("stale_inputs", "n_stale", "Requests whose input was too stale to decide on."),
    ("cache_lookups", "n_cache_lookups", "Requests for which a kept answer was looked for."),
    ("cache_hits", "n_cache_hits", "Requests answered with a kept answer."),
    ("shared_computations", "n_shared", "Requests that joined the same one in flight."),
    ("model_failures", "n_failures", "Models that raised an error."),
    ("model_swaps", "n_swaps", "Models that took over from another while the server ran."),
    ("model_swaps_refused", "n_swaps_refused", "Models that could not take over."),
    ("ledger_away", "n_ledger_away", "Looks for a new model that the ledger did not answer."),
)


def exposition(
    strategies: Sequence[LiveStrategy],
    model_bytes: int,
    events: EventWriter | None = None,
    *,
    refused: Mapping[int, int] | None = None,
    now_s: float,
) -> bytes:
    """Return what is measured of strategies, the memory of models, and events for the ledger.

    Parameters
    ----------
    refused : mapping of int to int, optional
        By status, how many requests for no strategy were answered with an error.
    now_s : float
        Seconds since 1970, which the age of models is told by.
    """
    lines: list[str] = []
    for name, attribute, meaning in _COUNTERS:
        lines += _head(f"trademl_{name}_total", "counter", meaning)
        for strategy in strategies:
            value = getattr(strategy.counters, attribute)
            lines.append(f"trademl_{name}_total{_labels(strategy=strategy.name)} {value}")
    lines += _head("trademl_refused_requests_total", "counter", "Requests answered with an error.")
    lines.extend(
        f"trademl_refused_requests_total{_labels(strategy=name, status=str(status))} {count}"
        for name, counts in (*((s.name, s.counters.refused) for s in strategies), ("", refused))
        for status, count in (counts or {}).items()
    )
    lines += _head("trademl_tier_changes_total", "counter", "Steps on the ladder.")
    lines.extend(
        f"trademl_tier_changes_total{_labels(strategy=s.name, old=old, new=new)} {count}"
        for s in strategies
        for (old, new), count in s.counters.tier_changes.items()
    )
    lines += _head("trademl_level", "gauge", "Tier that is tried first; 0 is the biggest model.")
    lines += [f"trademl_level{_labels(strategy=s.name)} {s.standing.level}" for s in strategies]
    lines += _head("trademl_latency_seconds", "histogram", "From arrival to answer, by tier.")
    for strategy in strategies:
        for tier, histogram in by_tier(strategy.counters):
            labels = {"strategy": strategy.name, "tier": tier}
            lines += _histogram("trademl_latency_seconds", labels, histogram)
    lines += _head("trademl_queue_seconds", "histogram", "From arrival to computation.")
    for strategy in strategies:
        labels = {"strategy": strategy.name}
        lines += _histogram("trademl_queue_seconds", labels, strategy.counters.queue)
    lines += _head("trademl_model_age_seconds", "gauge", "Since a model of a ladder was made.")
    lines.extend(
        f"trademl_model_age_seconds{_labels(strategy=s.name, tier=tier, model=held.file.id)} "
        f"{now_s - held.file.made_at_s:.0f}"
        for s in strategies
        for tier, held in zip(s.tiers, s.ladder, strict=False)
        if held.file.made_at_s is not None
    )
    lines += _head("trademl_model_bytes", "gauge", "Memory of models read from files.")
    lines.append(f"trademl_model_bytes {model_bytes}")
    if events is not None:
        lines += _events(events)
    return "\n".join([*lines, ""]).encode()


def _events(events: EventWriter) -> Iterator[str]:
    yield from _head("trademl_ledger_events_total", "counter", "Events for the ledger, by fate.")
    for result, count in (("written", events.n_written), ("dropped", events.n_dropped)):
        yield f"trademl_ledger_events_total{_labels(result=result)} {count}"
    yield from _head("trademl_ledger_events_waiting", "gauge", "Events that are not written yet.")
    yield f"trademl_ledger_events_waiting {events.n_waiting}"


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]


def _histogram(name: str, labels: dict[str, str], histogram: Histogram) -> Iterator[str]:
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
        yield f"{name}_bucket{_labels(**labels, le=bound)} {count}"
    yield f"{name}_sum{_labels(**labels)} {histogram.sum_s:.9g}"
    yield f"{name}_count{_labels(**labels)} {histogram.n}"


def _labels(**labels: str) -> str:
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
