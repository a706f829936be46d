"""``trademl predict``: ask a server or an endpoint about rows, or score whole files without one."""

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
    from trademl.serve.questions import Predictions
    from trademl.store.artifacts import Artifact

Format = Literal["jsonl", "csv", "parquet"]
URL = "http://127.0.0.1:8080"


def predict(
    rows: Annotated[
        list[Path],
        typer.Argument(
            help="RecordIO (.recordio) or CSV without a header. With --batch several, of Parquet "
            "or captured requests (.jsonl) too, or .gz; labels in them are left out."
        ),
    ],
    url: Annotated[str, typer.Option(help="Where the server is.")] = URL,
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds the token the server asks for, alone.")
    ] = None,
    ca_file: options.CaFile = None,
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which strategy of a server of several; its first one by default. Of sagemaker, "
            "the endpoint, the strategy's own by default.",
        ),
    ] = "",
    variant: Annotated[
        str, typer.Option(metavar="NAME", help="Of sagemaker: which variant of the endpoint.")
    ] = "",
    feature_time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The latest tick that the features read, with its zone "
            "(2026-08-20T12:00:00Z), or now; the files do not say it, and [freshness] may want it.",
        ),
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Score whole files, without a server.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="Which model of a server of many, that of serve --models or a multi-model "
            "endpoint. Of --batch, its id; the strategy's champion by default, else the newest."
        ),
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
    """Ask a server or a SageMaker endpoint for the score and label of every row, or score files."""
    flags = Flags(dry_run, wait, retry, max_cost)
    if on == "local":
        flags.refuse_elsewhere()
        _refuse("needs --on sagemaker", {"--variant": variant})
    of_a_server = {"--url": url != URL, "--token-file": token_file, "--ca-file": ca_file}
    if batch:
        asked = {"--endpoint": endpoint, "--variant": variant, "--feature-time": feature_time}
        _refuse("is of a server: leave it out with --batch", asked | of_a_server)
        _batch(rows, model, output, output_format, on, flags, join_source, config, workspace, json)
        return
    if len(rows) > 1:
        raise typer.BadParameter("several files need --batch")
    at_ns = None if feature_time is None else _nanoseconds(feature_time)
    if on == "local":
        _ask(rows[0], url, token_file, ca_file, endpoint, model, at_ns, as_json=json)
        return
    flags.refuse_without_a_job()
    _refuse("is of a server: leave it out", of_a_server)
    _ask_endpoint(rows[0], endpoint, model, variant, at_ns, config, as_json=json)


def _refuse(why: str, given: dict[str, Any]) -> None:
    if names := [name for name, value in given.items() if value]:
        raise typer.BadParameter(f"{names[0]} {why}")


def _nanoseconds(text: str) -> int:
    """Return a time as UTC ns."""
    from datetime import UTC, datetime, timedelta

    try:
        at = datetime.now(UTC) if text == "now" else datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        expected = "now, or a time with its zone, such as 2026-08-20T12:00:00Z"
        raise typer.BadParameter(f"--feature-time is {text!r}: expected {expected}")
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _ask(
    rows: Path,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    endpoint: str,
    model: str | None,
    at_ns: int | None,
    *,
    as_json: bool,
) -> None:
    require_extra("serve")
    from trademl.serve.client import predict as ask
    from trademl.serve.client import read_token
    from trademl.serve.feature_file import read_feature_file

    answers = ask(
        url,
        read_feature_file(rows),
        content_type=_content_type(rows),
        token="" if token_file is None else read_token(token_file),
        strategy=endpoint,
        model=model or "",
        ca_file="" if ca_file is None else str(ca_file),
        feature_time_ns=at_ns,
    )
    _show(answers, as_json=as_json)


def _ask_endpoint(
    rows: Path,
    endpoint: str,
    model: str | None,
    variant: str,
    at_ns: int | None,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    require_extra("serve", "aws")
    from trademl.aws.hosted import ask_sagemaker
    from trademl.config import find_strategy_file, load_settings
    from trademl.serve.feature_file import read_feature_file

    strategy = load_settings(find_strategy_file(config)).strategy
    answers = ask_sagemaker(
        read_feature_file(rows),
        strategy.aws,
        strategy.hosting,
        strategy=strategy.name,
        endpoint=endpoint,
        model=model or "",
        variant=variant,
        feature_time_ns=at_ns,
        content_type=_content_type(rows),
    )
    _show(answers, as_json=as_json)


def _content_type(rows: Path) -> str:
    from trademl.serve.formats import CSV, RECORDIO

    return CSV if rows.suffix == ".csv" else RECORDIO


def _show(answers: Predictions, *, as_json: bool) -> None:
    predictions = [
        {"score": score, "predicted_label": None if label != label else int(label)}
        for score, label in zip(answers.score_N.tolist(), answers.label_N.tolist(), strict=True)
    ]
    result = {
        "id": answers.model_id,
        "mode": answers.mode,
        "status": answers.status,
        "reasons": list(answers.reasons),
        "predictions": predictions,
    }
    _say_refused(answers.model_id, answers.status, answers.reasons)
    emit(result, as_json=as_json, lines=map(_line, predictions))


def _line(prediction: dict[str, Any]) -> str:
    score, label = prediction["score"], prediction["predicted_label"]
    scores = score if isinstance(score, list) else [score]
    return "  ".join([*(f"{one:.6f}" for one in scores), *([] if label is None else [str(label)])])


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
