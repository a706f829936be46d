"""A backtest of a user's strategy or signals as an artifact and as rows of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trademl.backtest.jobs import ENGINES, record_result, settings_of, write_result
from trademl.backtest.run import BacktestResult, backtest
from trademl.backtest.settings import BacktestConfig, realism
from trademl.backtest.signal_file import read_signals
from trademl.backtest.user_strategy import backtest_strategy
from trademl.ingest.sources import FeedConfig, read_quotes
from trademl.ledger import Ledger, tables
from trademl.market.costs import Costs
from trademl.market.quotes import Quotes
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
    parameters = {**settings_of(costs, config), "strategy": str(file)}
    engine = "backtrader" if result.trades.fills is not None else "callback"
    return _kept(result, quotes, file, feed, parameters, [engine], store, ledger, seed)


def backtest_signals(
    file: Path,
    feed: FeedConfig,
    costs: Costs,
    config: BacktestConfig,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    engines: Sequence[str] = ENGINES,
    seed: int = 7,
) -> Artifact:
    """Trade a file of signals over a feed's quotes in every engine, and publish what came of it.

    Returns
    -------
    Artifact
        Its metric ``stopped`` says where a gap in the quotes ended it.

    Raises
    ------
    DataError
        If signals or quotes cannot be read or traded: see `trademl.backtest.signal_file`.
    ParityError
        If the engines differ in a trade.
    """
    recorded = read_quotes(feed)
    quotes, signals = read_signals(file, recorded, timezone=feed.timezone)
    result = backtest(
        quotes, signals, costs, threshold=0.0, engines=engines, config=config, seed=seed
    )
    result.metrics["realism"] = realism(costs, config, recorded)  # without moments between quotes
    parameters = {**settings_of(costs, config), "signals": str(file)}
    return _kept(result, quotes, file, feed, parameters, list(engines), store, ledger, seed)


def _kept(
    result: BacktestResult,
    quotes: Quotes,
    file: Path,
    feed: FeedConfig,
    parameters: dict[str, Any],
    engines: list[str],
    store: ArtifactStore,
    ledger: Ledger,
    seed: int,
) -> Artifact:
    """Publish a result under an id that its file, its quotes and its trades make."""
    trades = result.trades
    parameters |= {"feed": asdict(feed), "engines": engines, "seed": seed}
    inputs = {
        "strategy": digest_file(file),
        "quotes": digest_bytes(b"".join(c.tobytes() for c in (quotes.ts_event, quotes.bid))),
        "trades": digest_bytes(trades.pnl.tobytes() + trades.exit_index.tobytes()),
        "stopped": result.metrics["stopped"] or "",
    }
    identity = artifact_id("backtest", inputs, parameters)
    if (published := store.find(identity)) is None:
        with store.create(identity, parents=[], parameters=parameters) as draft:
            write_result(draft, result, quotes)
        published = store.get(identity)
    record_result(published, tables.Backtest(engines=engines), ledger)
    return published
