"""Two files from elsewhere as a batch of a workspace."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trademl.ingest.batch import PRICES, TRANSACTIONS, open_batch_files, write_batch
from trademl.ingest.original_files import read_original_batch
from trademl.ingest.replay import record_batch
from trademl.ledger import Ledger
from trademl.market.health import flag_delays
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id


def imported_batch_id(
    inputs: Mapping[str, str], *, time_limit_s: float | None, max_delay_s: float
) -> str:
    """Return the id of the batch that two files make; nothing is made.

    Parameters
    ----------
    inputs : mapping
        ``prices`` and ``transactions`` to the SHA-256 of each file.
    time_limit_s : float or None
        Longest life of an order of the original's files; None says that they are a batch's.
    """
    return artifact_id("batch", inputs, _parameters(time_limit_s, max_delay_s))


def import_batch(
    identity: str,
    prices: Path,
    transactions: Path,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    time_limit_s: float | None,
    max_delay_s: float,
) -> Artifact:
    """Publish two files as the batch of that id, unless it is there.

    The files of a batch are copied as they are; those of the original get a header, and their
    orders stay without exits.

    Raises
    ------
    DataError
        If a file cannot be used: names file and line.
    """
    if (batch := store.find(identity)) is None:
        parameters = _parameters(time_limit_s, max_delay_s)
        with store.create(identity, parents=[], parameters=parameters) as draft:
            if time_limit_s is None:
                shutil.copyfile(prices, draft.path / PRICES)
                shutil.copyfile(transactions, draft.path / TRANSACTIONS)
            else:
                found = read_original_batch(prices, transactions, time_limit_s=time_limit_s)
                found = replace(found, quotes=flag_delays(found.quotes, max_delay_s))
                write_batch(draft.path, found, instrument=prices.stem, first_seq=0)
            draft.metrics.update(instrument=prices.stem, **_metrics(draft.path))
        batch = store.get(identity)
    record_batch(batch, ledger)
    return batch


def _parameters(time_limit_s: float | None, max_delay_s: float) -> dict[str, Any]:
    if time_limit_s is None:
        return {"imported": "batch"}
    return {"imported": "original", "time_limit_s": time_limit_s, "max_delay_s": max_delay_s}


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
