"""``trademl deploy``: put a model behind an endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

app = typer.Typer(
    help="Put a model behind an endpoint.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _deploy() -> None:
    pass


@app.command("local")
def local(
    model: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Deploy a model on this machine: live if it was accepted, in shadow mode if refused."""
    from trademl.serve.deployments import deploy

    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        chosen = store.newest("model", model)
        deployment = deploy(
            chosen, session.strategy.serving.endpoint, store, session.workspace.ledger
        )
    result = {
        "id": deployment.id,
        "endpoint": deployment.endpoint,
        "mode": deployment.mode,
        "model": deployment.model_id,
    }
    lines = [
        f"{deployment.id}: {chosen.id} is {deployment.mode} at endpoint {deployment.endpoint}",
        "next: trademl serve",
    ]
    emit(result, as_json=json, lines=lines)
