"""The life cycle as one run.

Each step is skipped where its artifact exists, so that a run that was killed goes on where it
stopped, and a second one changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from trademl.backtest.jobs import backtest_model
from trademl.errors import require_extra
from trademl.etl.build import build_features
from trademl.etl.labels import Labelling
from trademl.etl.verify import require_proof, verify_dataset
from trademl.ingest.bar_batches import export_on_bars
from trademl.ingest.replay import export, replay
from trademl.monitor.report import write_report
from trademl.pipeline.allocation_run import run_allocation_strategy
from trademl.pipeline.recorded import Result, recorded
from trademl.pipeline.strategy import Strategy, check_strategy
from trademl.pipeline.workspace import Workspace
from trademl.ports import Progress, Silent
from trademl.serve.deployments import deploy
from trademl.serve.predictions import predict_dataset, read_scores
from trademl.store.artifacts import Artifact
from trademl.train.evaluations import evaluate_model
from trademl.train.jobs import select_model, tune_dataset
from trademl.train.proof import check_proof
from trademl.train.registry import champion, promote
from trademl.train.verdicts import gate_entry, gate_model


def run(
    strategy: Strategy,
    workspace: Workspace,
    *,
    environment: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Take a strategy from its quotes to a report.

    One that names bars to allocate among is taken through
    `trademl.pipeline.allocation_run.run_allocation_strategy`.

    Parameters
    ----------
    environment : mapping, optional
        Of the processes that train an allocation's network.

    Returns
    -------
    dict
        One entry for each of ``batch``, ``dataset``, ``tuning``, ``selected``, ``gate``,
        ``deployment``, ``evaluation``, ``backtest``, ``report`` and ``ledger``, each with its
        ``id`` (a path for the last two). Where the gate did not say promote and
        ``serving.shadow_refused`` is off, the champion stays: ``deployment``, ``evaluation`` and
        ``backtest`` have the id None.

    Raises
    ------
    MissingExtraError
        If a library that a later step needs is not installed.
    LockedError
        If another run holds the workspace.
    TrademlError
        If a step fails; the steps before it are kept.
    """
    require_extra("train", "serve", "backtest", "monitor")
    check_strategy(strategy)
    progress = progress or Silent()
    if strategy.allocation.bars:
        return run_allocation_strategy(
            strategy, workspace, environment=environment, progress=progress
        )
    with workspace.lock(), recorded(strategy, workspace) as result:
        _run_steps(strategy, workspace, result, progress)
    return result


def _run_steps(
    strategy: Strategy, workspace: Workspace, result: Result, progress: Progress
) -> None:
    store, ledger, seed = workspace.store, workspace.ledger, strategy.seed
    batch = _ingest(strategy, workspace, progress)
    result["batch"] = _entry(batch)
    progress.step("features")
    began = datetime.now(UTC)
    dataset = build_features(
        batch,
        strategy.features,
        strategy.split,
        store,
        ledger,
        labelling=Labelling(costs=strategy.costs),
        health=strategy.health,
        progress=progress,
    )
    progress.done(_made(dataset, began, _dataset_line(dataset)))
    result["dataset"] = _entry(dataset)
    progress.step("verify")
    proof = verify_dataset(dataset, store, ledger, seed=seed, progress=progress)
    progress.done(_made(proof, began, _proof_line(proof)))
    require_proof(dataset.id, ledger)
    result["dataset"]["proof"] = proof.id
    study = tune_dataset(dataset, strategy.tuning, store, ledger, seed=seed, progress=progress)
    result["tuning"] = _entry(study)
    progress.step("select")
    model = select_model(study, strategy.selection, store, ledger, seed=seed)
    progress.done(_made(model, began, str(model.metrics["verdict"])))
    result["selected"] = _entry(model)
    gate = gate_model(
        model, strategy.name, strategy.gate, store, ledger, seed=seed, progress=progress
    )
    result["gate"] = gate_entry(gate)
    if gate.verdict == "promote":
        check_proof(model, store, ledger)
        promote(ledger, strategy.name, model.id, how="gate")
    if champion(ledger, strategy.name) == model.id or strategy.serving.shadow_refused:
        _serve_and_trade(strategy, workspace, model, dataset, result, progress)
    else:
        result |= {name: {"id": None} for name in ("deployment", "evaluation", "backtest")}
    progress.step("report")
    path = write_report(result, store, workspace.root / "reports")
    progress.done(str(path))
    result["report"] = {"id": str(path)}
    result["ledger"] = {"id": str(workspace.ledger.database)}


def _ingest(strategy: Strategy, workspace: Workspace, progress: Progress) -> Artifact:
    progress.step("ingest")
    began = datetime.now(UTC)
    bot, costs, store, ledger = (strategy.orders, strategy.costs, workspace.store, workspace.ledger)
    if strategy.bars.by:
        batches = export_on_bars(strategy.feed, strategy.bars, bot, costs, store, ledger)
    else:
        recording = replay(strategy.feed, workspace.ticks, progress=progress)
        delay_s = strategy.health.max_delay_s
        batches = export(recording, workspace.ticks, bot, costs, store, ledger, max_delay_s=delay_s)
    newest = batches[-1]
    progress.done(_made(newest, began, f"{newest.metrics['n_orders']} orders"))
    return newest


def _serve_and_trade(
    strategy: Strategy,
    workspace: Workspace,
    model: Artifact,
    dataset: Artifact,
    result: Result,
    progress: Progress,
) -> None:
    store, ledger = workspace.store, workspace.ledger
    deployment = deploy(model, strategy.serving.endpoint, store, ledger)
    predictions = predict_dataset(deployment, dataset, store, ledger, progress=progress)
    score_N = read_scores(predictions)
    result["deployment"] = {
        "id": deployment.id,
        "endpoint": deployment.endpoint,
        "mode": deployment.mode,
        "model": model.id,
        "predictions": predictions.id,
        "n_predictions": predictions.metrics["n"],
    }
    result["evaluation"] = _entry(evaluate_model(model, store, ledger, score_N=score_N))
    result["backtest"] = _entry(
        backtest_model(
            model,
            strategy.costs,
            store,
            ledger,
            score_N=score_N,
            deployment_id=deployment.id,
            config=strategy.backtest,
            seed=strategy.seed,
            progress=progress,
        )
    )


def _entry(artifact: Artifact) -> dict[str, Any]:
    return {"id": artifact.id, **artifact.metrics}


def _made(artifact: Artifact, began: datetime, found: str) -> str:
    """Return what a step found, or that its artifact was there before it began."""
    was_there = artifact.manifest["created_at"] < began.isoformat(timespec="microseconds")
    return f"kept {artifact.id}" if was_there else f"{found}  ({artifact.id})"


def _dataset_line(dataset: Artifact) -> str:
    rows: Mapping[str, Any] = dataset.metrics["splits"]
    return " / ".join(str(split["rows"]) for split in rows.values()) + " rows"


def _proof_line(proof: Artifact) -> str:
    found = proof.metrics
    return (
        f"{found['n_cells']} cells of {found['n_rows']} rows made again from data cut off in time"
    )
