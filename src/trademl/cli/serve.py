"""``trademl serve``: the model server, until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trademl.cli import options
from trademl.cli.session import open_session
from trademl.errors import require_extra

app = typer.Typer(
    help="Answer requests for models, or trade live.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def serve(
    context: typer.Context,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of an endpoint, the strategy's by default; give several to serve them "
            "from one process. The first answers who names none in X-Trademl-Strategy."
        ),
    ] = None,
    smaller: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Id, folder or s3:// address of a smaller model that answers under load, for the "
            "only endpoint; give several, biggest first.",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Serve what is loaded over HTTP from below this folder (POST /models), as a "
            "multi-model container does, and nothing else.",
        ),
    ] = None,
    ml_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Serve the model that SageMaker laid out below DIR, to anyone."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Port; 0 takes a free one; $SAGEMAKER_BIND_TO_PORT, else 8080."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Lines of 'predict TOKEN' and 'admin TOKEN': nobody else may ask."),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Anyone who reaches the address may ask.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM): HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    memory_mib: Annotated[
        int, typer.Option(help="Most memory for models that are read from files.")
    ] = 1024,
    config: options.Config = None,
    workspace: options.Workspace = None,
) -> None:
    """Answer /ping and /invocations for what is deployed at endpoints, or serve /models."""
    if context.invoked_subcommand is not None:
        return
    require_extra("serve")
    from trademl.config import bind_port
    from trademl.serve.server import ServerConfig
    from trademl.serve.server import serve as serve_until_stopped

    settings = ServerConfig(
        host=host,
        port=bind_port() if port is None else port,
        memory_bytes=memory_mib * 2**20,
        token_file=token_file,
        is_open=open_to_all,
        tls_cert=tls_cert,
        tls_key=tls_key,
        model_folder=models,
    )
    if ml_root is not None:
        _serve_container(ml_root, settings.port)
        return
    if models is not None:
        serve_until_stopped(
            (), settings, on_ready=lambda url: typer.echo(f"serving {models} at {url}", err=True)
        )
        return
    from trademl.serve.deployments import deployed_file, deployed_strategies
    from trademl.serve.event_writer import EventWriter
    from trademl.serve.ledger_events import ledger_events

    with open_session(config, workspace, needs_file=not endpoint) as session:
        strategy, store = session.strategy, session.workspace.store
        ledger = session.workspace.ledger
        models_named = [*(smaller or ()), *(rung.model for rung in strategy.serving.rungs)]
        if any(name.startswith("s3://") for name in models_named):
            import trademl.aws.model_files  # noqa: F401  teaches the address
        strategies = deployed_strategies(
            endpoint or [strategy.serving.endpoint],
            store,
            ledger,
            policy=strategy.ladder,
            freshness=strategy.freshness,
            smaller=smaller or (),
            serving=strategy.serving,
        )
        with EventWriter(ledger_events(ledger)) as events:
            serve_until_stopped(
                strategies,
                settings,
                on_ready=lambda url: typer.echo(
                    f"serving {', '.join(map(str, strategies))} at {url}", err=True
                ),
                newest=lambda name: deployed_file(name, store, ledger),
                events=events,
            )


def _serve_container(root: Path, port: int) -> None:
    from trademl.config import process_environment
    from trademl.serve.container import container_serving
    from trademl.serve.server import serve as serve_until_stopped

    found = container_serving(root, port, process_environment())
    serve_until_stopped(
        found.strategies,
        found.config,
        on_ready=lambda url: typer.echo(f"serving {root} at {url}", err=True),
    )
