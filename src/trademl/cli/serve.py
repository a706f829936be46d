"""``trademl serve``: the model server, until it is told to stop."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trademl.cli import options
from trademl.cli.output import LogFormat, announce
from trademl.cli.session import open_session
from trademl.errors import ConfigError, require_extra

if TYPE_CHECKING:
    from trademl.serve.event_writer import EventWriter
    from trademl.serve.following import Newest
    from trademl.serve.settings import ServerConfig
    from trademl.serve.strategies import ServedStrategy

LOGGED_PER_S, KEPT_PERCENT, MEMORY_MIB = 1.0, 10.0, 1024

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
            metavar="DIR",
            help="Serve the model that SageMaker laid out below DIR: to anyone, at any address, "
            "unless --host or --token-file is given.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; 127.0.0.1, and 0.0.0.0 with --ml-root."),
    ] = None,
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
    memory_mib: options.MemoryMib = None,
    max_body_mib: Annotated[
        int | None,
        typer.Option(
            help="Largest body of a request, 1 to 25; 6, and with --ml-root "
            "$SAGEMAKER_MAX_PAYLOAD_IN_MB."
        ),
    ] = None,
    max_connections: options.MaxConnections = 1024,
    timeout_s: options.TimeoutS = 60.0,
    workers: options.Workers = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="Of what is logged on stderr; text, and json with --ml-root."),
    ] = None,
    log_requests: options.LogRequests = None,
    emf: options.Emf = None,
    capture: options.Capture = None,
    capture_percent: options.CapturePercent = None,
    worker: Annotated[
        str | None, typer.Option(hidden=True, help="Of a process that --workers started.")
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
) -> None:
    """Answer /ping and /invocations for what is deployed at endpoints, or serve /models."""
    if context.invoked_subcommand is not None:
        return
    given = {"--endpoint": endpoint, "--smaller": smaller, "--config": config}
    given |= {"--workspace": workspace, "--models": models}
    _refuse_beside("--ml-root", ml_root, given)
    _refuse_beside("--models", models, given)
    require_extra("serve")
    from trademl.config import bind_port, container_workers
    from trademl.serve.capture import CaptureConfig
    from trademl.serve.command import ServeOptions
    from trademl.serve.logs import logging_to
    from trademl.serve.settings import EMF_S, EVERYWHERE, LOOPBACK, ServerConfig
    from trademl.serve.supervisor import read_place

    ServeOptions(workers, capture, capture_percent, log_requests, emf)  # refuses what contradicts
    is_container = ml_root is not None and host is None

    if capture is not None and capture.startswith("s3://"):
        import trademl.aws.capture  # noqa: F401  (it teaches destinations of s3)
    if models is not None and not models.is_dir():
        raise ConfigError(f"--models {models}: there is no such folder, make it or name another")
    settings = ServerConfig(
        host=host or (EVERYWHERE if is_container else LOOPBACK),
        port=bind_port() if port is None else port,
        **options.server_limits(
            6 if max_body_mib is None else max_body_mib, max_connections, timeout_s
        ),
        memory_bytes=(memory_mib or MEMORY_MIB) * 2**20,
        token_file=token_file,
        is_open=open_to_all or (is_container and token_file is None),
        tls_cert=tls_cert,
        tls_key=tls_key,
        model_folder=models,
        worker=None if worker is None else read_place(worker),
        log_per_s=LOGGED_PER_S if log_requests is None else log_requests,
        emf_s=EMF_S if emf else None,
        capture=None
        if capture is None
        else CaptureConfig(capture, capture_percent or KEPT_PERCENT),
    )
    if workers is None:
        workers = 1 if ml_root is None else container_workers()
    form = log_format or ("text" if ml_root is None else "json")
    number = None if settings.worker is None else settings.worker.number
    with logging_to(sys.stderr, form, worker=number):
        if workers > 1 and settings.worker is None:
            _supervise(settings, workers, form)
        elif ml_root is not None:
            _serve_container(ml_root, settings, form, emf=emf, max_body_mib=max_body_mib)
        elif models is not None:
            _serve((), str(models), settings, form)
        else:
            _serve_deployed(endpoint, smaller, config, workspace, settings, form)


def _refuse_beside(option: str, value: Path | None, others: Mapping[str, object]) -> None:
    """Refuse what would be passed over: other options that say what is served."""
    for name, other in others.items():
        if value is not None and name != option and other:
            raise typer.BadParameter(
                f"{name} does not go with {option}, which says alone what is served"
            )


def _serve_deployed(
    endpoint: list[str] | None,
    smaller: list[str] | None,
    config: Path | None,
    workspace: Path | None,
    settings: ServerConfig,
    form: LogFormat,
) -> None:
    from trademl.pipeline.ladders import strategy_ladders
    from trademl.serve.deployments import deployed_file
    from trademl.serve.event_writer import EventWriter
    from trademl.serve.ledger_events import ledger_events

    with open_session(config, workspace, needs_file=not endpoint) as session:
        store, ledger = session.workspace.store, session.workspace.ledger
        strategies = strategy_ladders(
            session.strategy, session.workspace, endpoints=endpoint or (), smaller=smaller or ()
        )
        with EventWriter(ledger_events(ledger)) as events:
            _serve(
                strategies,
                ", ".join(map(str, strategies)),
                settings,
                form,
                newest=lambda name: deployed_file(name, store, ledger),
                events=events,
            )


def _serve_container(
    root: Path,
    settings: ServerConfig,
    form: LogFormat,
    *,
    emf: bool | None,
    max_body_mib: int | None,
) -> None:
    from trademl.config import process_environment
    from trademl.serve.container import container_serving

    found = container_serving(
        root, settings, process_environment(), emf=emf, max_body_mib=max_body_mib
    )
    names = ", ".join(strategy.name for strategy in found.strategies)
    _serve(found.strategies, f"{names or 'what is loaded'} from {root}", found.config, form)


def _serve(
    strategies: tuple[ServedStrategy, ...],
    what: str,
    settings: ServerConfig,
    form: LogFormat,
    *,
    newest: Newest | None = None,
    events: EventWriter | None = None,
) -> None:
    from trademl.serve.server import serve as serve_until_stopped

    def say(url: str) -> None:
        place = settings.worker
        where = f"serving {what} at {url}"
        announce(where if place is None else f"worker {place.number} serves {what}", form)

    serve_until_stopped(strategies, settings, on_ready=say, newest=newest, events=events)


def _supervise(settings: ServerConfig, workers: int, form: LogFormat) -> None:
    """Start this command again for each worker, and watch over them."""
    from trademl.serve.supervisor import place_text, supervise

    again = [sys.executable, "-m", "trademl", *sys.argv[1:], "--worker"]
    supervise(
        lambda place: [*again, place_text(place)],
        settings,
        workers,
        on_ready=lambda url: announce(f"{workers} workers answer at {url}", form),
    )
