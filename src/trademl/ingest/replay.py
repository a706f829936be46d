"""Replay a recording into the tick store, let the order bot trade it, export the batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from trademl.errors import DataError, StoreError
from trademl.ingest.batch import Batch, write_batch
from trademl.ingest.export import cut_batches
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.ingest.sources import FeedConfig, adjustments_path, quotes_path, read_quotes
from trademl.ingest.tick_store import TickStore
from trademl.ledger import Ledger, tables
from trademl.market.bars import Bars
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.health import MAX_DELAY_S, flag_delays
from trademl.market.orders import ExitReason, Orders, Transactions
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id, digest_file

READER_VERSION = 3  # raise it when the same file would be read into other quotes


def recording_id(feed: FeedConfig) -> str:
    """Return the id of the recording that a feed's file makes: its content and how it is read."""
    left_out = ("quotes", "adjustments", "allow_bad_quotes")
    how = {k: v for k, v in asdict(feed).items() if k not in left_out}
    inputs = {"file": digest_file(quotes_path(feed))}
    if feed.adjustments:
        inputs["adjustments"] = digest_file(adjustments_path(feed))
    return artifact_id("recording", inputs, how, code=f"reader {READER_VERSION}")


def replay(feed: FeedConfig, ticks: TickStore, *, progress: Progress | None = None) -> str:
    """Read a file of quotes into the tick store, and return the recording's id.

    What is stored already is not stored again: a replay that was killed goes on where it stopped.

    Raises
    ------
    DataError
        If the file cannot be used: see `trademl.ingest.sources.read_quotes`.
    """
    progress = progress or Silent()
    recording = recording_id(feed)
    known = ticks.find(recording)
    if known is None or not known.is_complete:
        quotes = read_quotes(feed)
        for n_stored in ticks.append(recording, feed.name, quotes_path(feed).name, quotes):
            progress.advance(n_stored, len(quotes))
    return recording


def newest_recording(ticks: TickStore) -> str:
    """Return the id of the recording that was stored last.

    Raises
    ------
    StoreError
        If the store is empty.
    """
    if not (recordings := ticks.recordings()):
        raise StoreError(f"{ticks.url}: holds no recording yet: run trademl ingest replay")
    return recordings[-1].id


def export(
    recording: str,
    ticks: TickStore,
    bot: OrderBotConfig,
    costs: Costs,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    max_delay_s: float = MAX_DELAY_S,
) -> list[Artifact]:
    """Place and settle the bot's orders on a finished recording, and publish its batches.

    Parameters
    ----------
    max_delay_s : float
        Quotes for which the venue declares a longer delay are never traded on.

    Returns
    -------
    list of Artifact
        The batches, oldest first; those published before are not made again.

    Raises
    ------
    DataError
        If the spread is as wide as a barrier, or no order could be resolved.
    """
    parameters = {"orders": asdict(bot), "costs": asdict(costs), "max_delay_s": max_delay_s}
    if (done := published_batches(recording, parameters, store, ledger)) is not None:
        return done
    known = ticks.find(recording)
    instrument = known.instrument if known else ""
    quotes = flag_delays(ticks.load(recording), max_delay_s)
    if not quotes.is_executable.any():
        raise DataError(
            f"{recording}: the venue declares every quote delayed by more than {max_delay_s:g} s: "
            "nothing could be traded; raise health.max_delay_s"
        )
    orders = place_orders(quotes, bot)
    transactions = settle(quotes, orders, costs)
    return publish_batches(
        recording, instrument, quotes, orders, transactions, bot, costs, parameters, store, ledger
    )


def publish_batches(
    recording: str,
    instrument: str,
    quotes: Quotes,
    orders: Orders,
    transactions: Transactions,
    bot: OrderBotConfig,
    costs: Costs,
    parameters: Mapping[str, Any],
    store: ArtifactStore,
    ledger: Ledger,
    *,
    bars: Bars | None = None,
) -> list[Artifact]:
    """Cut settled orders into batches, and publish those that are not there.

    Parameters
    ----------
    bars : Bars, optional
        What the orders were settled on, where ``quotes`` are closes of bars.

    Returns
    -------
    list of Artifact
        All batches of the recording, oldest first.

    Raises
    ------
    DataError
        If no order could be resolved.
    """
    ranges = cut_batches(quotes, transactions, bot, costs, is_finished=True)
    for number, (start, stop) in enumerate(ranges):
        rows = slice(start, stop)
        first_seq, last_seq = _price_window(quotes, orders.take(rows), transactions.take(rows), bot)
        batch = Batch(
            quotes.slice(first_seq, last_seq),
            orders.take(rows).shift(-first_seq),
            transactions.take(rows).shift(-first_seq),
            np.arange(start, stop),
            bars=None if bars is None else bars.slice(first_seq, last_seq),
        )
        with store.create(
            _batch_id(recording, parameters, number),
            parents=[recording],
            parameters={**parameters, "number": number, "of": len(ranges)},
        ) as draft:
            write_batch(draft.path, batch, instrument=instrument, first_seq=first_seq)
            draft.metrics.update(
                instrument=instrument, n_placed_in_recording=len(orders), **_metrics(batch)
            )
    return published_batches(recording, parameters, store, ledger) or []


def record_batch(batch: Artifact, ledger: Ledger) -> None:
    """Write a batch's row into the ledger; one made of files has no recording."""
    metrics = batch.metrics
    ledger.record(
        tables.Batch(
            id=batch.id,
            instrument=metrics["instrument"],
            recording_id=next(iter(batch.manifest["parents"]), ""),
            number=batch.manifest["parameters"].get("number", 0),
            n_orders=metrics["n_orders"],
            first_entry_ns=metrics["first_entry_ns"],
            last_exit_ns=metrics["last_exit_ns"],
            label_rate=metrics["label_rate"],
            path=str(batch.path),
        )
    )


def _batch_id(recording: str, parameters: Mapping[str, Any], number: int) -> str:
    return artifact_id("batch", {"recording": recording}, {**parameters, "number": number})


def published_batches(
    recording: str, parameters: Mapping[str, Any], store: ArtifactStore, ledger: Ledger
) -> list[Artifact] | None:
    """Return a recording's batches made with these parameters, oldest first; None if not all."""
    if (first := store.find(_batch_id(recording, parameters, 0))) is None:
        return None
    n_batches = first.manifest["parameters"]["of"]
    found = [store.find(_batch_id(recording, parameters, number)) for number in range(n_batches)]
    batches = [batch for batch in found if batch]
    if len(batches) < n_batches:
        return None
    for batch in batches:
        record_batch(batch, ledger)
    return batches


def _price_window(
    quotes: Quotes, orders: Orders, done: Transactions, bot: OrderBotConfig
) -> tuple[int, int]:
    from_ns = int(quotes.ts_event[orders.quote_index[0]]) - bot.lookback_s * NS_PER_S
    first = int(np.searchsorted(quotes.ts_event, from_ns, side="left"))
    return first, int(done.exit_index.max()) + 1


def _metrics(batch: Batch) -> dict[str, Any]:
    done, ts_event = batch.transactions, batch.quotes.ts_event
    return {
        "n_orders": len(batch),
        "n_quotes": len(batch.quotes),
        "n_flagged_quotes": int((batch.quotes.flags != 0).sum()),
        "first_entry_ns": int(ts_event[done.entry_index[0]]),
        "last_exit_ns": int(ts_event[done.exit_index].max()),
        "label_rate": float(done.label.mean()),
        "mean_pnl": float(done.pnl.mean()),
        "exits": {r.name.lower(): int((done.reason == r).sum()) for r in ExitReason if r},
        "median_spread": float(np.median(batch.quotes.spread[done.entry_index])),
        "median_take_profit": float(np.median(batch.orders.take_profit)),
        "median_stop_loss": float(np.median(batch.orders.stop_loss)),
    }
