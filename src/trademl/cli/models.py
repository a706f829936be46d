"""``trademl models``: judge, gate, evaluate, list, promote and take back models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trademl.cli import options
from trademl.cli.output import check_lines, emit
from trademl.cli.session import open_session

if TYPE_CHECKING:
    from trademl.ledger import tables
    from trademl.train.registry import Reigned

Model = Annotated[str | None, typer.Argument(help="Id; the newest by default.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")]

app = typer.Typer(
    help="Selection, the gate, evaluation, and the registry of champions.",
    no_args_is_help=True,
    rich_markup_mode=None,
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
    if found["status"] == "accepted":
        lines.append(f"next: trademl models gate {model.id}")
    emit({"id": model.id, **found}, as_json=json, lines=lines)


@app.command("gate")
def gate(
    model: Model = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Judge a selected model on test rows: promote, hold or reject, with every reason."""
    from trademl.train.verdicts import gate_entry, gate_model

    with open_session(config, workspace) as session, session.workspace.lock():
        store, strategy = session.workspace.store, session.strategy
        chosen = store.newest("model", model)
        found = gate_entry(
            gate_model(
                chosen,
                strategy.name,
                strategy.gate,
                store,
                session.workspace.ledger,
                seed=strategy.seed,
                progress=session.progress,
            )
        )
    lines = [f"{found['verdict']}: {chosen.id} for strategy {found['strategy']}"]
    lines += check_lines(found)
    if found["verdict"] == "promote":
        lines.append(f"next: trademl models promote {chosen.id}")
    emit(found, as_json=json, lines=lines)


@app.command("evaluate")
def evaluate(
    model: Model = None,
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
    """List the models of a workspace, oldest first, and what was champion when and why."""
    from trademl.train.registry import challenger, history, known_strategies

    with open_session(None, workspace, needs_file=False) as session:
        ledger = session.workspace.ledger
        store = session.workspace.store
        models = [*store.all_of("model"), *store.all_of("forecaster")]
        strategies: list[dict[str, Any]] = [
            {
                "name": name,
                "challenger": challenger(ledger, name),
                "history": [_reign(reign) for reign in history(ledger, name)],
            }
            for name in known_strategies(ledger)
        ]
    rows = [{"id": m.id, **m.metrics} for m in models]
    lines = [f"{r['id']}  trial {r['trial']}  {r['verdict']}" for r in rows]
    for strategy in strategies:
        lines.append(f"strategy {strategy['name']}: challenger {strategy['challenger'] or 'none'}")
        lines += [f"  {_reign_line(reign)}" for reign in strategy["history"]]
    emit(
        {"models": rows, "strategies": strategies},
        as_json=json,
        lines=lines or ["no model yet: run trademl run"],
    )


@app.command("show")
def show(
    model: Model = None, workspace: options.Workspace = None, json: options.Json = False
) -> None:
    """Show a model in short: its data, costs, verdicts, champions and limits."""
    from trademl.train.card import model_card

    with open_session(None, workspace, needs_file=False) as session:
        store = session.workspace.store
        card = model_card(store.newest("model", model), store, session.workspace.ledger)
    emit(card, as_json=json, lines=_card_lines(card))


@app.command("card")
def card(
    model: Model = None, workspace: options.Workspace = None, json: options.Json = False
) -> None:
    """Print a model's card as Markdown: every figure with its interval and its baseline."""
    from trademl.train.card import model_card
    from trademl.train.card_text import card_markdown

    with open_session(None, workspace, needs_file=False) as session:
        store = session.workspace.store
        found = model_card(store.newest("model", model), store, session.workspace.ledger)
    emit(found, as_json=json, lines=card_markdown(found).splitlines())


@app.command("promote")
def promote(
    model: Model = None,
    reason: Reason = "",
    force: Annotated[
        str | None,
        typer.Option(
            "--force", metavar="REASON", help="Promote what the gate did not; REASON is kept."
        ),
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Make a model the champion of the strategy and put it live."""
    from trademl.pipeline.promotion import promote_model

    with open_session(config, workspace) as session, session.workspace.lock():
        chosen = session.workspace.store.newest("model", model)
        reign, deployment = promote_model(
            chosen, session.strategy, session.workspace, reason=reason, force=force
        )
    _emit_reign(reign, deployment, as_json=json)


@app.command("rollback")
def rollback(
    reason: Reason = "",
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Bring back the champion before this one and put it live."""
    from trademl.pipeline.promotion import rollback_model

    with open_session(config, workspace) as session, session.workspace.lock():
        reign, deployment = rollback_model(session.strategy, session.workspace, reason=reason)
    _emit_reign(reign, deployment, as_json=json)


def _emit_reign(reign: Reigned, deployment: tables.Deployment, *, as_json: bool) -> None:
    result = {"id": reign.model_id, **_reign(reign), "deployment": deployment.id}
    lines = [_reign_line(result), f"{deployment.mode} at endpoint {deployment.endpoint}"]
    emit(result | {"endpoint": deployment.endpoint}, as_json=as_json, lines=lines)


def _reign(reign: Reigned) -> dict[str, Any]:
    return {
        "model": reign.model_id,
        "from_at": reign.from_at.isoformat(),
        "to_at": reign.to_at.isoformat() if reign.to_at else None,
        "how": reign.how,
        "why": reign.why,
        "gate": reign.gate_id,
    }


def _reign_line(reign: Mapping[str, Any]) -> str:
    until = f"to {reign['to_at'][:19]}" if reign["to_at"] else "until now"
    return f"{reign['model']}  {reign['from_at'][:19]} {until}  {reign['how']}: {reign['why']}"


def _card_lines(card: Mapping[str, Any]) -> list[str]:
    data, model, costs = card["data"], card["model"], card["costs"]
    lines = [
        f"{card['id']}: trial {model['trial']} of {model['study']}, threshold "
        f"{model['threshold']:.7g}",
        f"data: {data['instrument']}, {data['columns']} columns, {data['dataset']}",
    ]
    lines += [
        f"  {name}: {part['rows']} rows, base rate {_share(part['label_rate'])}, each earned "
        f"{_number(part['mean_pnl'])}"
        for name, part in data["splits"].items()
    ]
    lines.append("costs: " + ", ".join(f"{name} {value}" for name, value in costs.items()))
    lines.append(f"selection: {card['selection']['verdict']}")
    lines += [f"  {reason}" for reason in card["selection"]["reasons"]]
    for gate in card["gates"]:
        lines += [f"gate for strategy {gate['strategy']}: {gate['verdict']}", *check_lines(gate)]
    if not card["gates"]:
        lines.append("gate: not asked yet")
    lines += [f"  {f['name']}: {_figure(f)}" for f in card["figures"]]
    lines += [f"champion of {r['strategy']}: {_span(r)}" for r in card["reigns"]]
    return [*lines, "limits:", *(f"  {limit}" for limit in card["limits"])]


def _span(reign: Mapping[str, Any]) -> str:
    until = (reign["to_at"] or "now")[:19]
    return f"{reign['from_at'][:19]} to {until}, {reign['how']}: {reign['why']}"


def _figure(found: Mapping[str, Any]) -> str:
    low, high, versus = (
        found["low"],
        found["high"],
        f"{found['versus']} {_number(found['baseline'])}",
    )
    between = "no interval" if low is None else f"95 % {_number(low)} to {_number(high)}"
    return f"{_number(found['value'])} ({between}; {versus})"


def _of(row: Mapping[str, Any]) -> str:
    return " (calibrated)" if row["name"] == "calibrated" else ""


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
