"""Where a trade came from: signal, model, study, dataset, proof, batch and the very ticks."""

from __future__ import annotations

from typing import Any

import numpy as np

from trademl.backtest.recordings import recording_of
from trademl.errors import StoreError
from trademl.ledger import Ledger, tables
from trademl.market.quotes import Quotes
from trademl.store.artifacts import Artifact, ArtifactStore

AROUND = 2  # quotes told before and after a fill
Told = dict[str, Any]


def explain_trade(
    backtest_id: str, number: int, store: ArtifactStore, ledger: Ledger
) -> dict[str, Any]:
    """Walk back from a trade of a backtest to what it was made of.

    Parameters
    ----------
    number : int
        The trade's number within its backtest, from 0.

    Returns
    -------
    dict
        Safe for JSON: ``trade``, ``backtest``, ``signal``, ``deployment``, ``model``, ``study``,
        ``dataset``, ``proof`` and ``batch`` with their ids, each None where there is none;
        ``ticks`` at the decision, the entry and the exit; and ``missing``, a sentence for each
        step of the way that cannot be told.

    Raises
    ------
    StoreError
        If the ledger has no such backtest, or the backtest no such trade.
    """
    backtest = ledger.get(tables.Backtest, backtest_id)
    if backtest is None:
        raise StoreError(f"the ledger has no backtest {backtest_id}: run trademl backtest run")
    trade = ledger.get(tables.Trade, (backtest_id, number))
    if trade is None:
        n = len(ledger.rows(tables.Trade, backtest_id=backtest_id))
        raise StoreError(f"{backtest_id} has no trade {number}: it has {n}, counted from 0")
    missing: list[str] = []
    artifact = store.find(backtest_id)
    told: Told = {
        "trade": _columns(trade),
        "backtest": _columns(backtest, "id", "created_at", "engines", "path"),
        **_lineage(backtest, trade, ledger, missing),
        "ticks": _ticks(trade, artifact, store, missing),
    }
    settings = artifact.manifest["parameters"] if artifact else {}
    told["backtest"]["costs"] = settings.get("costs")
    told["strategy"] = settings.get("strategy")
    told["missing"] = missing
    return told


def _columns(row: Any, *names: str) -> Told:
    """Return columns of a row as JSON holds them."""
    chosen = names or tuple(column.name for column in row.__table__.columns)
    values = {name: getattr(row, name) for name in chosen}
    return {n: v.isoformat() if hasattr(v, "isoformat") else v for n, v in values.items()}


def _lineage(
    backtest: tables.Backtest, trade: tables.Trade, ledger: Ledger, missing: list[str]
) -> Told:
    def find(what: str, table: type[tables.Base], key: Any, *names: str) -> Told | None:
        if key is None:
            missing.append(f"the {what}: the step before it does not name one")
            return None
        row = ledger.get(table, key)
        if row is None:
            missing.append(f"the {what} {key}: the ledger does not hold it")
            return None
        return _columns(row, *names)

    model_id, dataset_id = backtest.model_id, backtest.dataset_id
    if model_id is None and (window := _window(backtest, trade, ledger)) is not None:
        model_id = window.model_id
        of_window = ledger.get(tables.Model, model_id)
        dataset_id = of_window.dataset_id if of_window else None
    if model_id is None:
        missing.append("model, dataset and batch: a strategy file decided, no model")
        signal = {"score": trade.score, "threshold": None, "prediction": None}
        nothing = dict.fromkeys(("deployment", "model", "study", "dataset", "proof", "batch"))
        return {"signal": signal, **nothing}
    model = find("model", tables.Model, model_id, "id", "status", "verdict",
                 "threshold", "trial_number", "study_id", "dataset_id", "path")  # fmt: skip
    study = find("study", tables.Study, model and model["study_id"])
    if study and model:
        trial = (study["id"], model["trial_number"])
        study["trial"] = find("trial", tables.Trial, trial, "number", "hyperparameters", "metrics")
    dataset = find("dataset", tables.Dataset, dataset_id, "id", "batch_id", "facts",
                   "path")  # fmt: skip
    proofs = ledger.rows(tables.Proof, dataset_id=dataset_id)
    if not proofs:
        missing.append(f"a proof that {dataset_id} reads no future: trademl features verify")
    deployment = None
    if backtest.deployment_id is not None:
        deployment = find("deployment", tables.Deployment, backtest.deployment_id)
    else:
        missing.append("a deployment: the model was asked directly, nothing served it")
    return {
        "signal": {
            "order_id": trade.order_id,
            "decided_at_ns": trade.decided_at_ns,
            "score": trade.score,
            "threshold": model and model["threshold"],
            "prediction": _prediction(backtest, trade, ledger, missing),
        },
        "deployment": deployment,
        "model": model,
        "study": study,
        "dataset": dataset,
        "proof": _columns(proofs[-1], "id", "is_proven", "evidence") if proofs else None,
        "batch": find("batch", tables.Batch, dataset and dataset["batch_id"]),
    }


def _window(
    backtest: tables.Backtest, trade: tables.Trade, ledger: Ledger
) -> tables.WalkWindow | None:
    """Return the window of a walk-forward whose model decided a trade, if it is one."""
    at_ns = trade.opened_at_ns if trade.decided_at_ns is None else trade.decided_at_ns
    for window in ledger.rows(tables.WalkWindow, walk_forward_id=backtest.id):
        if window.traded_from_ns <= at_ns <= window.traded_to_ns and window.model_id:
            return window
    return None


def _prediction(
    backtest: tables.Backtest, trade: tables.Trade, ledger: Ledger, missing: list[str]
) -> Told | None:
    if backtest.deployment_id is None:
        return None
    key = (backtest.deployment_id, backtest.dataset_id, trade.order_id)
    if (row := ledger.get(tables.Prediction, key)) is None:
        missing.append(f"the prediction of order {trade.order_id}: the ledger does not hold it")
        return None
    return _columns(row)


def _ticks(
    trade: tables.Trade, artifact: Artifact | None, store: ArtifactStore, missing: list[str]
) -> Told | None:
    quotes = None if artifact is None else recording_of(artifact, store)
    if quotes is None:
        missing.append("the ticks: the quotes that it was made on are not in the workspace")
        return None
    moments = {
        "decision": trade.decided_at_ns,
        "entry": trade.opened_at_ns,
        "exit": trade.closed_at_ns,
    }
    found = {}
    for name, at_ns in moments.items():
        if at_ns is None:
            missing.append("the tick of the decision: the backtest is older than its record")
            continue
        found[name] = _around(quotes, at_ns)
        if not any(tick["is_it"] for tick in found[name]):
            missing.append(f"the tick of the {name}: the recording has none of {at_ns} ns")
    return found


def _around(quotes: Quotes, at_ns: int) -> list[Told]:
    """Return the quotes of a moment, the last ones of many, and some before and after."""
    first, last = (int(np.searchsorted(quotes.ts_event, at_ns, side=s)) for s in ("left", "right"))
    start = max(0, first - AROUND, last - 2 * AROUND - 1)
    return [
        {
            "index": k,
            "ts_event_ns": int(quotes.ts_event[k]),
            "bid": _price(quotes.bid[k]),
            "ask": _price(quotes.ask[k]),
            "flags": int(quotes.flags[k]),
            "is_it": bool(quotes.ts_event[k] == at_ns),
        }
        for k in range(start, min(len(quotes), last + AROUND))
    ]


def _price(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
