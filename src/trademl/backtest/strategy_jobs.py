"""A backtest of a strategy file as an artifact and as rows of the ledger."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from trademl.backtest.jobs import record_result, settings_of, write_result
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.user_strategy import backtest_strategy
from trademl.ingest.sources import FeedConfig, read_quotes
from trademl.ledger import Ledger, tables
from trademl.market.costs import Costs
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id, digest_bytes, digest_file


def backtest_file(
    file: Path,
    feed: FeedConfig,
    costs: Costs,
    config: BacktestConfig,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    seed: int = 7,
) -> Artifact:
    """Trade a strategy file over a feed's quotes, and publish its trades, equity and figures.

    Returns
    -------
    Artifact
        Where the strategy raised, of what had ended; its metric ``stopped`` says what and where.

    Raises
    ------
    ConfigError
        If the file cannot be imported, or holds no strategy.
    DataError
        If the quotes cannot be read or traded, or the strategy answers with no order.

    Notes
    -----
    It is traded each time: a strategy may read what no identity covers. So the trades are a part
    of the identity, and the same ones are stored once.
    """
    quotes = read_quotes(feed)
    result = backtest_strategy(file, quotes, costs, config, seed=seed)
    trades = result.trades
    parameters = {
        **settings_of(costs, config),
        "strategy": str(file),
        "feed": asdict(feed),
        "seed": seed,
    }
    inputs = {
        "strategy": digest_file(file),
        "quotes": digest_bytes(b"".join(c.tobytes() for c in (quotes.ts_event, quotes.bid))),
        "trades": digest_bytes(trades.pnl.tobytes() + trades.exit_index.tobytes()),
        "stopped": trades.stopped or "",
    }
    identity = artifact_id("backtest", inputs, parameters)
    if (published := store.find(identity)) is None:
        with store.create(identity, parents=[], parameters=parameters) as draft:
            write_result(draft, result, quotes)
        published = store.get(identity)
    engine = "backtrader" if trades.fills is not None else "callback"
    record_result(published, tables.Backtest(engines=[engine]), ledger)
    return published
