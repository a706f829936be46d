"""The quotes that a backtest of the store was made on."""

from __future__ import annotations

from trademl.errors import TrademlError
from trademl.ingest.batch import open_batch
from trademl.ingest.sources import FeedConfig, read_quotes
from trademl.market.quotes import Quotes
from trademl.store.artifacts import Artifact, ArtifactStore


def recording_of(backtest: Artifact, store: ArtifactStore) -> Quotes | None:
    """Return the quotes of a backtest's or walk-forward's batch, or of its feed; None if gone."""
    feed, parents = backtest.manifest["parameters"].get("feed"), backtest.manifest["parents"]
    try:
        if feed is not None:
            return read_quotes(FeedConfig(**feed))
        batch = parents[0]
        if backtest.manifest["kind"] == "backtest":
            batch = store.get(parents[1]).manifest["parents"][0]
        return open_batch(store.get(batch)).quotes
    except (TrademlError, IndexError):
        return None
