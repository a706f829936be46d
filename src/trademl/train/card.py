"""A model card: from what data, at what costs, how good, what the gate said, its limits.

What is known when a model is made lies beside it; what came after, from the gate to the champions,
stands in the ledger, and is added when a card is asked for.
"""

from __future__ import annotations

import json
from typing import Any

from trademl.errors import StoreError
from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.train.card_file import CARD, card_core
from trademl.train.verdicts import gate_entry


def model_card(model: Artifact, store: ArtifactStore, ledger: Ledger) -> dict[str, Any]:
    """Return what a user should know of a model before trusting it, as JSON can hold it.

    Returns
    -------
    dict
        ``kind``, ``hash``, ``data`` (instrument, columns, span and rows of each split), ``costs``,
        ``model`` (how it was trained, threshold), ``selection`` (verdict and reasons), ``figures``
        (each with interval and baseline), ``limits``; and of the ledger ``gates``, ``evaluations``,
        ``backtests``, ``reigns``. A card of version 1, without a file, has no figures.

    Raises
    ------
    StoreError
        If the artifact is no model, or its card is damaged.
    """
    core = _read_card(model) if CARD in model.manifest["files"] else _built(model, store, ledger)
    return core | {
        "gates": [gate_entry(gate) for gate in ledger.rows(tables.Gate, model_id=model.id)],
        "evaluations": [
            {"id": row.id, "split": row.split, **row.metrics}
            for row in ledger.rows(tables.Evaluation, model_id=model.id)
        ],
        "backtests": [_traded(row) for row in ledger.rows(tables.Backtest, model_id=model.id)],
        "reigns": [_reign(reign) for reign in ledger.rows(tables.Reign, model_id=model.id)],
    }


def _built(model: Artifact, store: ArtifactStore, ledger: Ledger) -> dict[str, Any]:
    if "judgements" not in model.metrics:
        raise StoreError(
            f"{model.id} is no model that was selected: run trademl models select {model.id}"
        )
    study, dataset = (store.get(parent) for parent in model.manifest["parents"])
    card = card_core(model.id, model.metrics, study, dataset, ledger)
    files = {name: entry["sha256"] for name, entry in model.manifest["files"].items()}
    return card | {"kind": "linear binary classifier", "hash": files}


def _read_card(model: Artifact) -> dict[str, Any]:
    path = model.file(CARD)
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}): delete its folder and run again") from error


def _traded(row: tables.Backtest) -> dict[str, Any]:
    names = ("n_trades", "net_pnl", "fees", "max_drawdown", "figures", "cost_ladder")
    told = {name: row.metrics.get(name) for name in names}
    beside = row.metrics.get("benchmarks", {}).get("equal_weights")
    told["baseline"] = row.metrics.get("baseline") or beside
    return {"id": row.id, "deployment": row.deployment_id, **told}


def _reign(reign: tables.Reign) -> dict[str, Any]:
    return {
        "strategy": reign.strategy,
        "from_at": reign.from_at.isoformat(),
        "to_at": reign.to_at.isoformat() if reign.to_at else None,
        "how": reign.how,
        "why": reign.why,
    }
