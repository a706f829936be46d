"""``trademl doctor``: what is installed, writable and missing, and what mends it."""

from __future__ import annotations

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import default_file

_MARKS = {"ok": "ok     ", "missing": "missing", "failed": "FAILED "}


def doctor(workspace: options.Workspace = None, json: options.Json = False) -> None:
    """Check the installation and the workspace; exits with 1 if `trademl run` would fail."""
    from trademl.config import load_settings
    from trademl.pipeline.doctor import examine

    settings = load_settings(workspace=workspace, ledger_of=default_file())
    root = settings.workspace
    checks = examine(root, settings.strategy.ledger)
    lines = [
        f"{_MARKS[c.status]}  {c.name:<10} {c.found}" + (f"  -> {c.mend}" if c.mend else "")
        for c in checks
    ]
    is_well = all(c.status != "failed" for c in checks)
    result = {"id": str(root), "is_well": is_well, "checks": [vars(c) for c in checks]}
    emit(result, as_json=json, lines=lines)
    if not is_well:
        raise typer.Exit(1)
