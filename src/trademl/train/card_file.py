"""The part of a model card that is known when a model is made, in two files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, write_atomically
from trademl.store.identity import digest_file
from trademl.train.card_text import card_markdown
from trademl.train.model import BinaryModel
from trademl.train.network_config import NETWORK, is_network

CARD, CARD_TEXT = "card.json", "card.md"
SHOWN_COLUMNS = 3


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """Write a card beside its model, for machines and for people."""
    write_atomically(folder / CARD, json.dumps(card, indent=1, allow_nan=False).encode())
    write_atomically(folder / CARD_TEXT, card_markdown(card).encode())


def selected_card(
    model_id: str,
    path: Path,
    model: BinaryModel,
    found: Mapping[str, Any],
    study: Artifact,
    dataset: Artifact,
    ledger: Ledger,
) -> dict[str, Any]:
    """Return the part of a card that is known when selection publishes a model.

    Parameters
    ----------
    path : Path
        Of its ``model.tar.gz``.
    found : mapping
        What selection measured: the metrics of the model's artifact.
    """
    card = card_core(model_id, found, study, dataset, ledger)
    card["kind"] = model.kind
    card["hash"] = {path.name: digest_file(path), "schema": model.schema_hash}
    card["data"]["names"] = shown_columns(model.columns)
    return card


def card_core(
    model_id: str, found: Mapping[str, Any], study: Artifact, dataset: Artifact, ledger: Ledger
) -> dict[str, Any]:
    """Return what study, dataset and selection say of a model."""
    facts = dataset.metrics
    row = ledger.get(tables.Dataset, dataset.id)
    batch = ledger.get(tables.Batch, row.batch_id) if row else None
    chosen = next(t for t in study.metrics["trials"] if t["number"] == found["trial"])
    judgement = next(j for j in found["judgements"] if j["trial"] == found["trial"])
    return {
        "id": model_id,
        "data": {
            "instrument": batch.instrument if batch else None,
            "recording": batch.recording_id if batch else None,
            "dataset": dataset.id,
            "columns": facts["feature_dim"],
            "splits": facts["splits"],
        },
        "costs": dataset.manifest["parameters"]["labels"]["costs"],
        "model": {
            "study": study.id,
            "trial": found["trial"],
            "hyperparameters": chosen["hyperparameters"],
            "threshold": found["threshold"],
        },
        "selection": {
            "verdict": found["verdict"],
            "reasons": found["reasons"],
            "figures": judgement["figures"],
            "overfitting": found["overfitting"],
        },
        "figures": found.get("figures", []),
        "limits": _limits(dataset, chosen["hyperparameters"]),
    }


def shown_columns(columns: tuple[str, ...]) -> list[str]:
    """Return the first and the last names of columns, with dots between."""
    if len(columns) <= 2 * SHOWN_COLUMNS:
        return list(columns)
    return [*columns[:SHOWN_COLUMNS], "...", *columns[-SHOWN_COLUMNS:]]


def _limits(dataset: Artifact, hyperparameters: Mapping[str, str]) -> list[str]:
    facts = dataset.metrics
    first, last = facts["splits"]["train"]["from_ns"], facts["splits"]["test"]["to_ns"]
    hours = (last - first) / 3.6e12
    costs = dataset.manifest["parameters"]["labels"]["costs"]
    limits = [
        f"it saw {hours:,.1f} hours of one instrument; other regimes are not in its figures",
        "every figure is of single orders of one unit: it moves no market and waits for no other",
        f"costs are those assumed: fees {costs['fee_bps']:g} bps and {costs['fee_per_unit']:g} a "
        f"unit, slippage {costs['slippage']:g}, latency {costs['latency_ms']:g} ms",
    ]
    if is_network(hyperparameters):
        shape = json.loads(hyperparameters[NETWORK])
        limits.append(
            f"a {shape['kind'].replace('_', ' ')} of {shape['depth']} blocks, {shape['width']} "
            f"wide, fitted to {facts['splits']['train']['rows']:,} rows: what it learned cannot be "
            "read off its weights; a score may differ in the last digits of a float32 between "
            "batches"
        )
    return [*limits, *facts.get("warnings", [])]
