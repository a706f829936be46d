"""``trademl predict``: ask a server about rows of features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.errors import require_extra


def predict(
    rows: Annotated[
        Path,
        typer.Argument(help="RecordIO (.recordio) or CSV without a header and without a label."),
    ],
    url: Annotated[str, typer.Option(help="Where the server is.")] = "http://127.0.0.1:8080",
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds the token the server asks for, alone.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Ask a running server for the score and label of every row of a file."""
    require_extra("serve")
    from trademl.serve.client import predict as ask
    from trademl.serve.client import read_token
    from trademl.serve.feature_file import read_feature_file
    from trademl.serve.formats import CSV, RECORDIO

    content_type = CSV if rows.suffix == ".csv" else RECORDIO
    token = "" if token_file is None else read_token(token_file)
    answers = ask(url, read_feature_file(rows), content_type=content_type, token=token)
    predictions = [
        {"score": float(score), "predicted_label": int(label)}
        for score, label in zip(answers.score_N, answers.label_N, strict=True)
    ]
    result = {
        "id": answers.model_id,
        "mode": answers.mode,
        "status": answers.status,
        "reasons": list(answers.reasons),
        "predictions": predictions,
    }
    lines = [f"{p['score']:.6f}  {p['predicted_label']}" for p in predictions]
    if answers.status == "refused":
        typer.echo(f"model {answers.model_id} was refused: {'; '.join(answers.reasons)}", err=True)
    emit(result, as_json=json, lines=lines)
