"""``trademl serve``: the model server, until it is told to stop."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trademl.cli import options
from trademl.cli.session import open_session
from trademl.errors import require_extra

if TYPE_CHECKING:
    from trademl.serve.event_writer import EventWriter
    from trademl.serve.following import Newest
    from trademl.serve.settings import ServerConfig
    from trademl.serve.strategies import ServedStrategy

LogFormat = Literal["text", "json"]

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
        int, typer.Option(help="Most memory of each worker for models that are read from files.")
    ] = 1024,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that answer at the address; a dead one is replaced. 1; of --ml-root "
            "$SAGEMAKER_MODEL_SERVER_WORKERS.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="Of what is logged on stderr; text, and json with --ml-root."),
    ] = None,
    log_requests: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="RATE",
            help="Successes a second that are logged. Errors always are, and requests that send "
            "an X-Request-Id.",
        ),
    ] = 1.0,
    emf: Annotated[
        bool | None,
        typer.Option(
            "--emf/--no-emf",
            help="Log figures once a minute in CloudWatch's embedded metric format; on with "
            "--ml-root.",
        ),
    ] = None,
    capture: Annotated[
        str | None,
        typer.Option(
            metavar="DEST",
            help="Keep a sample of requests and answers, as SageMaker's data capture does, below a "
            "folder or s3://bucket/prefix.",
        ),
    ] = None,
    capture_percent: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="How large that sample is.")
    ] = 10.0,
    worker: Annotated[
        str | None, typer.Option(hidden=True, help="Of a process that --workers started.")
    ] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
) -> None:
    """Answer /ping and /invocations for what is deployed at endpoints, or serve /models."""
    if context.invoked_subcommand is not None:
        return
    require_extra("serve")
    from trademl.config import bind_port, container_workers
    from trademl.serve.capture import CaptureConfig
    from trademl.serve.logs import logging_to
    from trademl.serve.settings import EMF_S, ServerConfig
    from trademl.serve.supervisor import read_place

    if capture is not None and capture.startswith("s3://"):
        import trademl.aws.capture  # noqa: F401  (it teaches destinations of s3)
    settings = ServerConfig(
        host=host,
        port=bind_port() if port is None else port,
        memory_bytes=memory_mib * 2**20,
        token_file=token_file,
        is_open=open_to_all,
        tls_cert=tls_cert,
        tls_key=tls_key,
        model_folder=models,
        worker=None if worker is None else read_place(worker),
        log_per_s=log_requests,
        emf_s=EMF_S if emf else None,
        capture=None if capture is None else CaptureConfig(capture, capture_percent),
    )
    if workers is None:
        workers = 1 if ml_root is None else container_workers()
    form = log_format or ("text" if ml_root is None else "json")
    number = None if settings.worker is None else settings.worker.number
    with logging_to(sys.stderr, form, worker=number):
        if workers > 1 and settings.worker is None:
            _supervise(settings, workers, ml_root, form)
        elif ml_root is not None:
            _serve_container(ml_root, settings, form, emf=emf)
        elif models is not None:
            _serve((), str(models), settings, form)
        else:
            _serve_deployed(endpoint, smaller, config, workspace, settings, form)


def _serve_deployed(
    endpoint: list[str] | None,
    smaller: list[str] | None,
    config: Path | None,
    workspace: Path | None,
    settings: ServerConfig,
    form: LogFormat,
) -> None:
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
            _serve(
                strategies,
                ", ".join(map(str, strategies)),
                settings,
                form,
                newest=lambda name: deployed_file(name, store, ledger),
                events=events,
            )


def _serve_container(
    root: Path, settings: ServerConfig, form: LogFormat, *, emf: bool | None
) -> None:
    from trademl.config import process_environment
    from trademl.serve.container import container_serving

    found = container_serving(root, settings.port, process_environment())
    config = replace(
        found.config,
        worker=settings.worker,
        log_per_s=settings.log_per_s,
        emf_s=found.config.emf_s if emf is None else settings.emf_s,
        capture=settings.capture,
    )
    _serve(found.strategies, str(root), config, form)


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
        _say(where if place is None else f"worker {place.number} serves {what}", form)

    serve_until_stopped(strategies, settings, on_ready=say, newest=newest, events=events)


def _supervise(settings: ServerConfig, workers: int, ml_root: Path | None, form: LogFormat) -> None:
    """Start this command again for each worker, and watch over them."""
    from trademl.serve.settings import EVERYWHERE
    from trademl.serve.supervisor import place_text, supervise

    if ml_root is not None:
        settings = replace(settings, host=EVERYWHERE, is_open=True)
    again = [sys.executable, "-m", "trademl", *sys.argv[1:], "--worker"]
    supervise(
        lambda place: [*again, place_text(place)],
        settings,
        workers,
        on_ready=lambda url: _say(f"{workers} workers answer at {url}", form),
    )


def _say(text: str, form: LogFormat) -> None:
    """Say on stderr what answers where, as the log's readers expect it."""
    if form == "text":
        typer.echo(text, err=True)
    else:
        logging.getLogger(__name__).info("%s", text)
