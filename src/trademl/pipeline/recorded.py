"""A pass of the pipeline as a row of the ledger, with how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from trademl.ledger import tables
from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace

Result = dict[str, dict[str, Any]]


@contextmanager
def recorded(strategy: Strategy, workspace: Workspace) -> Iterator[Result]:
    """Yield a result to fill in, an entry with an ``id`` a step; keep what came of it."""
    result: Result = {}
    row = tables.Run(
        strategy=strategy.name, started_at=datetime.now(UTC), status="running", artifacts={}
    )
    with workspace.ledger.session() as session:
        session.add(row)
    status = "failed"
    try:
        yield result
        status = "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        row.status, row.finished_at = status, datetime.now(UTC)
        row.artifacts = {name: entry["id"] for name, entry in result.items()}
        workspace.ledger.record(row)
