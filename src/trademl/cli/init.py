"""``trademl init``: a strategy file and a workspace to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trademl.cli import options
from trademl.cli.output import emit


def init(
    folder: Annotated[Path, typer.Argument(help="Where to put the files.")] = Path(),
    json: options.Json = False,
) -> None:
    """Write a strategy file and a tuning job to start from; nothing that exists is overwritten."""
    from trademl.pipeline.scaffold import write_scaffold

    written = write_scaffold(folder)
    lines = [f"wrote {path}" for path in written] or ["nothing to write: both files exist"]
    go = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    result = {"id": str(folder.resolve()), "written": [str(path) for path in written]}
    emit(result, as_json=json, lines=[*lines, f"next: {go}trademl run"])
