"""Two files from elsewhere, and the batch of a workspace that they make."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trademl.errors import DataError
from trademl.ingest.bar_files import are_bars, open_bar_files
from trademl.ingest.batch import (
    PRICES,
    TRANSACTIONS,
    OrderStream,
    open_batch_files,
    whole_batch,
    write_batch,
)
from trademl.ingest.csv_columns import has_header
from trademl.ingest.original_files import open_original_files
from trademl.ingest.replay import record_batch
from trademl.ledger import Ledger
from trademl.market.health import flag_delays
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id

Kind = Literal["batch", "original", "bars"]


@dataclass(frozen=True, slots=True)
class FilePair:
    """What two files are, and what they do not say themselves.

    Parameters
    ----------
    kind : {"batch", "original", "bars"}
        An export batch; the original demo's header-less files; OHLC bars and orders on them.
    time_limit_s : float, optional
        Longest life of an order where a file names none; of a batch they all do.
    max_delay_s : float, optional
        Largest declared delay of the original's quotes that are traded on.
    spread : float, optional
        Ask minus bid of bars that have one price.
    timezone : str, optional
        Zone of naive times of bars.
    """

    kind: Kind
    time_limit_s: float | None = None
    max_delay_s: float | None = None
    spread: float | None = None
    timezone: str | None = None

    def open(self, prices: Path, transactions: Path) -> OrderStream:
        """Read the prices; the orders are read when they are asked for.

        Raises
        ------
        DataError
            If a file cannot be used: names file and line.
        """
        limit_s = self.time_limit_s or 0.0
        if self.kind == "bars":
            return open_bar_files(
                prices,
                transactions,
                time_limit_s=limit_s,
                spread=self.spread,
                timezone=self.timezone,
            )
        if self.kind == "batch":
            return open_batch_files(prices, transactions)
        found = open_original_files(prices, transactions, time_limit_s=limit_s)
        return replace(found, quotes=flag_delays(found.quotes, self.max_delay_s or 0.0))

    def batch_id(self, inputs: Mapping[str, str]) -> str:
        """Return the id of the batch that two files of these digests make; nothing is made."""
        return artifact_id("batch", inputs, asdict(self))


def file_pair(
    prices: Path,
    transactions: Path,
    *,
    time_limit_s: float,
    max_delay_s: float,
    spread: float | None,
    timezone: str | None,
) -> FilePair:
    """Return what two files are, by their first lines.

    Raises
    ------
    DataError
        If they are not of one kind.
    """
    if are_bars(prices):
        return FilePair("bars", time_limit_s, None, spread, timezone)
    headers = [has_header(path) for path in (prices, transactions)]
    if headers[0] != headers[1]:
        with_header, without = (prices, transactions) if headers[0] else (transactions, prices)
        raise DataError(
            f"{with_header} begins with a header and {without} does not: expected two files of "
            "one kind, both with a header or both without"
        )
    return FilePair("batch") if headers[0] else FilePair("original", time_limit_s, max_delay_s)


def import_batch(
    identity: str,
    pair: FilePair,
    prices: Path,
    transactions: Path,
    store: ArtifactStore,
    ledger: Ledger,
) -> Artifact:
    """Publish two files as the batch of that id, unless it is there.

    The files of a batch are copied as they are; others become those of a batch whose orders have no
    exits.

    Raises
    ------
    DataError
        If a file cannot be used: names file and line.
    """
    if (batch := store.find(identity)) is None:
        with store.create(identity, parents=[], parameters=asdict(pair)) as draft:
            if pair.kind == "batch":
                shutil.copyfile(prices, draft.path / PRICES)
                shutil.copyfile(transactions, draft.path / TRANSACTIONS)
            else:
                found = whole_batch(pair.open(prices, transactions))
                write_batch(draft.path, found, instrument=prices.stem, first_seq=0)
            draft.metrics.update(instrument=prices.stem, **_metrics(draft.path))
        batch = store.get(identity)
    record_batch(batch, ledger)
    return batch


def _metrics(folder: Path) -> dict[str, Any]:
    files = open_batch_files(folder / PRICES, folder / TRANSACTIONS)
    ts_event, n_orders, n_labelled, n_earned = files.quotes.ts_event, 0, 0, 0
    first_entry_ns = int(ts_event[-1])
    for block in files.blocks():
        first_entry_ns = min(first_entry_ns, int(ts_event[block.transactions.entry_index.min()]))
        n_orders += len(block)
        n_labelled += int((~np.isnan(block.recorded_labels)).sum())
        n_earned += int((block.recorded_labels == 1).sum())
    return {
        "n_orders": n_orders,
        "n_quotes": len(ts_event),
        "first_entry_ns": first_entry_ns,
        "last_exit_ns": int(ts_event[-1]),
        "label_rate": n_earned / n_labelled if n_labelled else 0.0,
    }
