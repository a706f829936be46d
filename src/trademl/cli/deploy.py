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
    model: Annotated[
        str | None, typer.Argument(help="Id; the strategy's champion, else the newest.")
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Deploy a model on this machine: live if it is the champion, else in shadow mode."""
    from trademl.serve.deployments import deploy
    from trademl.train.registry import champion

    with open_session(config, workspace) as session, session.workspace.lock():
        store, strategy = session.workspace.store, session.strategy
        live = champion(session.workspace.ledger, strategy.name)
        chosen = store.newest("model", model or live)
        deployment = deploy(chosen, strategy.serving.endpoint, store, session.workspace.ledger)
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
