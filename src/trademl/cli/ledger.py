"""``trademl ledger``: the database behind a workspace, its schema, and results that wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import default_file

if TYPE_CHECKING:
    from pathlib import Path

    from trademl.config import Settings
    from trademl.pipeline.ledger_upkeep import LedgerStatus

app = typer.Typer(
    help="The ledger's database: how it stands, its schema, results that wait for it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _ledger() -> None:
    pass


@app.command("status")
def status(
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Show database, schema and what waits for it; exits with 1 if verbs could not use it."""
    from trademl.pipeline.ledger_upkeep import ledger_status

    settings = _settings(config, workspace)
    found = ledger_status(settings.workspace, settings.strategy.ledger)
    result = {"id": found.database, **vars(found), "is_usable": found.is_usable}
    emit(result, as_json=json, lines=_lines(found))
    if not found.is_usable:
        raise typer.Exit(1)


@app.command("upgrade")
def upgrade(
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Bring the tables to this trademl's schema; everybody who uses them must then be as new."""
    from trademl.pipeline.ledger_upkeep import upgrade_ledger

    settings = _settings(config, workspace)
    before = upgrade_ledger(settings.workspace, settings.strategy.ledger)
    name = str(settings.strategy.ledger.at(settings.workspace.resolve()))
    was = "empty" if before.found is None else f"at schema {before.found}"
    done = f"now at {before.newest}" if before.missing else "which is the newest: nothing to do"
    result = {"id": name, "from": before.found, "to": before.newest, "applied": before.missing}
    emit(result, as_json=json, lines=[f"{name}: was {was}, {done}"])


@app.command("flush")
def flush(
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Write results that waited while the database was away; any verb does so by itself too."""
    from trademl.pipeline.ledger_upkeep import flush_ledger

    settings = _settings(config, workspace)
    drained = flush_ledger(settings.workspace, settings.strategy.ledger)
    name = str(settings.strategy.ledger.at(settings.workspace.resolve()))
    lines = [f"{name}: {drained.n_written} results written, {len(drained.refused)} refused"]
    result = {"id": name, "n_written": drained.n_written, "refused": drained.refused}
    emit(result, as_json=json, lines=[*lines, *(f"  {reason}" for reason in drained.refused)])
    if drained.refused:
        raise typer.Exit(1)


def _settings(config: Path | None, workspace: Path | None) -> Settings:
    from trademl.config import load_settings

    return load_settings(config, workspace=workspace, ledger_of=default_file())


def _lines(found: LedgerStatus) -> Iterator[str]:
    schema = "no tables yet" if found.found is None else f"schema {found.found}"
    newer = "" if found.found == found.newest else f", this trademl's is {found.newest}"
    yield f"{found.database}: {found.state}"
    if found.newest is not None:
        yield f"  {schema}{newer}"
    if found.n_waiting or found.n_refused:
        yield f"  {found.n_waiting} results wait in {found.spool}, {found.n_refused} were refused"
    if found.says:
        yield f"  {found.says}"
