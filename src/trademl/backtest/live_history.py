"""Which model was live at an endpoint at each moment, by the ledger's deployments and reigns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from trademl.ledger import Ledger, tables
from trademl.market.quotes import NS_PER_S
from trademl.train.registry import history

FOREVER_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Live:
    """A span of time in which a model was live; UTC nanoseconds, ``to_ns`` excluded."""

    model_id: str
    from_ns: int
    to_ns: int
    deployment_id: str | None = None


def live_history(ledger: Ledger, endpoint: str, strategy: str) -> list[Live]:
    """Return what was deployed live at an endpoint, oldest first; else a strategy's champions."""
    deployed = [
        Live(row.model_id, _ns(row.created_at), _ns(row.retired_at), row.id)
        for row in ledger.rows(tables.Deployment, endpoint=endpoint, mode="live")
    ]
    reigned = [
        Live(reign.model_id, _ns(reign.from_at), _ns(reign.to_at))
        for reign in history(ledger, strategy)
    ]
    return sorted(deployed or reigned, key=lambda live: live.from_ns)


def live_at(spans: Sequence[Live], ts_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the span that each time lies in, -1 where nothing was live."""
    found = np.full(len(ts_N), -1)
    for number, span in enumerate(spans):
        found[(ts_N >= span.from_ns) & (ts_N < span.to_ns)] = number
    return found


def _ns(at: datetime | None) -> int:
    if at is None:
        return FOREVER_NS
    zoned = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return int(zoned.timestamp()) * NS_PER_S + zoned.microsecond * 1_000
