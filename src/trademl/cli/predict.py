"""``trademl predict``: ask a server about rows of features, or score whole files without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.sagemaker import DryRun, Flags, MaxCost, On, Retry, Wait, print_requests
from trademl.cli.session import Session, open_session
from trademl.errors import require_extra

if TYPE_CHECKING:
    from trademl.store.artifacts import Artifact

Format = Literal["jsonl", "csv", "parquet"]


def predict(
    rows: Annotated[
        list[Path],
        typer.Argument(
            help="RecordIO (.recordio) or CSV without a header. With --batch several, of Parquet "
            "or captured requests (.jsonl) too, or .gz; labels in them are left out."
        ),
    ],
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:8080",
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds the token the server asks for, alone.")
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Score whole files, without a server.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Of --batch: id; the strategy's champion by default, else the newest."),
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Of --batch: takes a file for each file.")
    ] = Path("predictions"),
    output_format: Annotated[Format, typer.Option("--format", help="Of --batch.")] = "jsonl",
    join_source: Annotated[
        bool, typer.Option("--join-source", help="Of sagemaker: repeat each row of CSV beside it.")
    ] = False,
    on: On = "local",
    dry_run: DryRun = False,
    wait: Wait = True,
    retry: Retry = False,
    max_cost: MaxCost = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Ask a running server for the score and label of every row of a file, or score files."""
    flags = Flags(dry_run, wait, retry, max_cost)
    if on == "local":
        flags.refuse_elsewhere()
    if batch:
        _batch(rows, model, output, output_format, on, flags, join_source, config, workspace, json)
        return
    if on != "local" or len(rows) > 1:
        raise typer.BadParameter("several files, and --on sagemaker, need --batch")
    _ask(rows[0], url, token_file, as_json=json)


def _ask(rows: Path, url: str, token_file: Path | None, *, as_json: bool) -> None:
    require_extra("serve")
    from trademl.serve.client import predict as ask
    from trademl.serve.client import read_token
    from trademl.serve.feature_file import read_feature_file
    from trademl.serve.formats import CSV, RECORDIO

    content_type = CSV if rows.suffix == ".csv" else RECORDIO
    token = "" if token_file is None else read_token(token_file)
    answers = ask(url, read_feature_file(rows), content_type=content_type, token=token)
    predictions = [
        {"score": float(score), "predicted_label": None if label != label else int(label)}
        for score, label in zip(answers.score_N, answers.label_N, strict=True)
    ]
    result = {
        "id": answers.model_id,
        "mode": answers.mode,
        "status": answers.status,
        "reasons": list(answers.reasons),
        "predictions": predictions,
    }
    lines = [
        f"{p['score']:.6f}" + ("" if p["predicted_label"] is None else f"  {p['predicted_label']}")
        for p in predictions
    ]
    _say_refused(answers.model_id, answers.status, answers.reasons)
    emit(result, as_json=as_json, lines=lines)


def _batch(
    rows: list[Path],
    model: str | None,
    output: Path,
    output_format: Format,
    on: Literal["local", "sagemaker"],
    flags: Flags,
    join_source: bool,
    config: Path | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    from trademl.serve.batch import predict_files
    from trademl.train.model import load_model

    with open_session(config, workspace, needs_file=on == "sagemaker") as session:
        chosen = chosen_model(session, model)
        loaded = load_model(chosen.file("model.tar.gz"))
        _say_refused(chosen.id, loaded.status, loaded.reasons)
        if on == "sagemaker":
            _transform(session, chosen, rows, output, flags, join_source, as_json=as_json)
            return
        scored = predict_files(
            loaded,
            chosen.id,
            rows,
            output,
            output_format=output_format,
            progress=session.progress,
        )
    files = [_facts(one) for one in scored]
    lines = [
        f"{one.path}: {one.n_rows} rows, {one.n_positive} labelled 1"
        + (" (kept)" if one.is_kept else "")
        for one in scored
    ]
    emit({"id": chosen.id, "status": loaded.status, "files": files}, as_json=as_json, lines=lines)


def _transform(
    session: Session,
    model: Artifact,
    rows: list[Path],
    output: Path,
    flags: Flags,
    join_source: bool,
    *,
    as_json: bool,
) -> None:
    from trademl.aws.prices import load_prices
    from trademl.aws.transform import estimate_transform, plan_transform, run_transform

    strategy = session.strategy
    plan = plan_transform(
        model,
        rows,
        strategy.aws,
        strategy.hosting,
        strategy=strategy.name,
        join_source=join_source,
    )
    prices = load_prices(strategy.aws.region, session.workspace.root)
    if flags.dry_run:
        print_requests(plan.requests, str(estimate_transform(plan, prices)))
        return
    done = run_transform(
        plan,
        output,
        prices,
        max_cost_usd=flags.max_cost,
        wait=flags.wait,
        retry=flags.retry,
        ledger=session.workspace.ledger,
        progress=session.progress,
    )
    files = [str(path) for path in done.files]
    result = {"id": model.id, "job": done.name, "status": done.status, "files": files}
    emit(result, as_json=as_json, lines=[f"{done.name}: {done.status}", *files])


def chosen_model(session: Session, model: str | None) -> Artifact:
    """Return the model asked for; else the strategy's champion, else the newest."""
    from trademl.train.registry import champion

    live = champion(session.workspace.ledger, session.strategy.name)
    return session.workspace.store.newest("model", model or live)


def _facts(scored: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(scored)


def _say_refused(model_id: str, status: str, reasons: tuple[str, ...]) -> None:
    if status == "refused":
        typer.echo(f"model {model_id} was refused: {'; '.join(reasons)}", err=True)
