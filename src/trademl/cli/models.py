"""``trademl models``: judge, evaluate and list models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

app = typer.Typer(
    help="Selection and evaluation of models.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("select")
def select(
    study: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Choose a study's best trial, if one clears the floors; say why each other was refused."""
    from trademl.train.jobs import select_model

    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        model = select_model(
            store.newest("study", study),
            session.strategy.selection,
            store,
            session.workspace.ledger,
            seed=session.strategy.seed,
        )
    found = model.metrics
    lines = [str(found["verdict"]), f"{model.id}: trial {found['trial']}, {found['status']}"]
    lines += [
        f"  trial {j['trial']}: {'; '.join(j['reasons']) or 'accepted'}"
        for j in found["judgements"]
    ]
    emit({"id": model.id, **found}, as_json=json, lines=lines)


@app.command("evaluate")
def evaluate(
    model: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Part of the dataset.")
    ] = "test",
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Measure a model on a split, with the base rate beside every number."""
    from trademl.train.evaluations import evaluate_model

    with open_session(None, workspace, needs_file=False) as session:
        store = session.workspace.store
        chosen = store.newest("model", model)
        found = evaluate_model(chosen, store, session.workspace.ledger, split=split)
    metrics = found.metrics
    lines = [
        f"{chosen.id} on {split}: {metrics['n']} orders, base rate {_share(metrics['base_rate'])}, "
        f"each earned {_number(metrics['base_mean_pnl'])}, ROC AUC {_number(metrics['roc_auc'])}"
    ]
    lines += [
        f"  at {row['threshold']:.7g}{_of(row)}: {row['n_flagged']} flagged, precision "
        f"{_share(row['precision'])}, recall {_share(row['recall'])}, each earned "
        f"{_number(row['mean_pnl'])}"
        for row in metrics["thresholds"]
    ]
    emit({"id": found.id, **metrics}, as_json=json, lines=lines)


@app.command("list")
def list_models(workspace: options.Workspace = None, json: options.Json = False) -> None:
    """List the models of a workspace, oldest first."""
    with open_session(None, workspace, needs_file=False) as session:
        models = session.workspace.store.all_of("model")
    rows = [{"id": m.id, **m.metrics} for m in models]
    lines = [f"{r['id']}  trial {r['trial']}  {r['verdict']}" for r in rows]
    emit({"models": rows}, as_json=json, lines=lines or ["no model yet: run trademl run"])


def _of(row: Mapping[str, Any]) -> str:
    return " (calibrated)" if row["name"] == "calibrated" else ""


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
