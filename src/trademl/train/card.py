"""A model card's core: from what data, at what costs, how good, what the gate said, its limits."""

from __future__ import annotations

from typing import Any

from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.train.verdicts import gate_entry


def model_card(model: Artifact, store: ArtifactStore, ledger: Ledger) -> dict[str, Any]:
    """Return what a user should know of a model before trusting it, as JSON can hold it.

    Returns
    -------
    dict
        ``data`` (instrument, span and rows of each split), ``costs``, ``model`` (trial,
        hyperparameters, threshold), ``selection`` (verdict and reasons on validation rows),
        ``gates`` (each verdict, with bounds, on test rows), ``reigns``, ``limits``.
    """
    study, dataset = (store.get(parent) for parent in model.manifest["parents"])
    facts, found = dataset.metrics, model.metrics
    row = ledger.get(tables.Dataset, dataset.id)
    batch = ledger.get(tables.Batch, row.batch_id) if row else None
    chosen = next(t for t in study.metrics["trials"] if t["number"] == found["trial"])
    judgement = next(j for j in found["judgements"] if j["trial"] == found["trial"])
    return {
        "id": model.id,
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
        "gates": [gate_entry(gate) for gate in ledger.rows(tables.Gate, model_id=model.id)],
        "reigns": [
            {
                "strategy": reign.strategy,
                "from_at": reign.from_at.isoformat(),
                "to_at": reign.to_at.isoformat() if reign.to_at else None,
                "how": reign.how,
                "why": reign.why,
            }
            for reign in ledger.rows(tables.Reign, model_id=model.id)
        ],
        "limits": _limits(dataset),
    }


def _limits(dataset: Artifact) -> list[str]:
    facts = dataset.metrics
    first, last = facts["splits"]["train"]["from_ns"], facts["splits"]["test"]["to_ns"]
    hours = (last - first) / 3.6e12
    costs = dataset.manifest["parameters"]["labels"]["costs"]
    return [
        f"it saw {hours:,.1f} hours of one instrument; other regimes are not in its figures",
        "every figure is of single orders of one unit: it moves no market and waits for no other",
        f"costs are those assumed: fees {costs['fee_bps']:g} bps and {costs['fee_per_unit']:g} a "
        f"unit, slippage {costs['slippage']:g}, latency {costs['latency_ms']:g} ms",
        *facts.get("warnings", []),
    ]
