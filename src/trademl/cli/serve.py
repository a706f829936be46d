"""``trademl serve``: the model server, until it is told to stop."""

from __future__ import annotations

from typing import Annotated

import typer

from trademl.cli import options
from trademl.cli.session import open_session
from trademl.errors import require_extra


def serve(
    endpoint: Annotated[
        str | None, typer.Option(help="Name of an endpoint; the strategy's by default.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Port; 0 takes a free one; $SAGEMAKER_BIND_TO_PORT, else 8080."),
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
) -> None:
    """Answer /ping and /invocations for what is deployed at an endpoint."""
    from trademl.config import bind_port
    from trademl.serve.deployments import current_deployment, served_model

    require_extra("serve")
    from trademl.serve.server import ServerConfig
    from trademl.serve.server import serve as serve_until_stopped

    needs_file = endpoint is None
    with open_session(config, workspace, needs_file=needs_file) as session:
        name = endpoint or session.strategy.serving.endpoint
        deployment = current_deployment(name, session.workspace.ledger)
        model = served_model(deployment, session.workspace.store)
    serve_until_stopped(
        model,
        ServerConfig(host=host, port=bind_port() if port is None else port),
        on_ready=lambda url: typer.echo(
            f"serving {model.id} ({model.mode}, {model.status}) at {url}", err=True
        ),
    )
