"""``trademl deploy``: put a model behind an endpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trademl.cli import options
from trademl.cli.deploy_sagemaker import deploy_sagemaker
from trademl.cli.output import emit
from trademl.cli.sagemaker import print_requests
from trademl.cli.session import Session, open_session
from trademl.cli.strategy_files import read_files, strategy_files
from trademl.errors import ConfigError, require_extra

if TYPE_CHECKING:
    from trademl.aws.ec2_release import Release
    from trademl.ledger.tables import Deployment
    from trademl.serve.background import Service
    from trademl.serve.command import ServeOptions
    from trademl.serve.strategies import ServedStrategy
    from trademl.train.model import Model

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
    start: Annotated[
        bool, typer.Option("--start", help="Also serve it in the background.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Say how that server is.")] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Let that server finish, and end it.")
    ] = False,
    port: Annotated[int, typer.Option(help="Of --start; 0 takes a free one.")] = 8080,
    workers: options.Workers = None,
    capture: options.Capture = None,
    capture_percent: options.CapturePercent = None,
    log_requests: options.LogRequests = None,
    memory_mib: options.MemoryMib = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Deploy a model on this machine: live if it is the champion, else in shadow mode."""
    from trademl.serve.command import ServeOptions

    if start + status + stop > 1:
        raise typer.BadParameter("--start, --status and --stop exclude each other")
    told = ServeOptions(workers, capture, capture_percent, log_requests, memory_mib=memory_mib)
    if not start and told.given():
        raise ConfigError(f"{told.words()[0]} is for the server that --start starts")
    if status or stop:
        _ask_service(workspace, stop=stop, as_json=json)
        return
    from trademl.serve.background import refuse_second
    from trademl.serve.deployments import deployed_if_it_works
    from trademl.serve.listening import check_free
    from trademl.serve.settings import LOOPBACK
    from trademl.serve.smoke import check_model
    from trademl.train.registry import champion

    command: list[str] = []
    service = None
    with open_session(config, workspace) as session, session.workspace.lock():
        store, strategy = session.workspace.store, session.strategy
        if start:
            refuse_second(session.workspace.root)
            _check_capture(capture)
            check_free(LOOPBACK, port)
        live = champion(session.workspace.ledger, strategy.name)
        chosen = store.newest("model", model or live)
        check_model(chosen)
        with deployed_if_it_works(
            chosen, strategy.serving.endpoint, store, session.workspace.ledger
        ) as deployment:
            if start:
                command = _command(deployment.endpoint, config, port, told)
                service = _start(session, deployment, command, workers=workers)
    result: dict[str, Any] = {
        "id": deployment.id,
        "endpoint": deployment.endpoint,
        "mode": deployment.mode,
        "model": deployment.model_id,
    }
    lines = [
        f"{deployment.id}: {chosen.id} is {deployment.mode} at endpoint {deployment.endpoint}",
        "next: trademl serve",
    ]
    if service is not None:
        result["service"] = {**_service_facts(service), "command": command[3:]}
        lines[1:] = [f"serving at {service.url}, process {service.process.pid}, log {service.log}"]
    emit(result, as_json=json, lines=lines)


def _check_capture(destination: str | None) -> None:
    """Refuse a destination that cannot be written to, before anything is changed."""
    if destination is None:
        return
    require_extra("serve")
    from trademl.serve.capture_sinks import open_sink

    if "://" in destination:
        import trademl.aws.capture  # noqa: F401  (it teaches destinations of s3)
    open_sink(destination)


def _command(endpoint: str, config: Path | None, port: int, told: ServeOptions) -> list[str]:
    """Return the command line of a server in the background, but for its workspace."""
    from trademl.config import find_strategy_file

    command = [sys.executable, "-m", "trademl", "serve", "--port", str(port)]
    command += ["--log-format", "text"]  # whose first line says where it listens
    command += ["--endpoint", endpoint, *told.words()]
    return [*command, "--config", str(find_strategy_file(config).resolve())]


def _start(
    session: Session, deployment: Deployment, command: list[str], *, workers: int | None
) -> Service:
    """Serve in the background what stands at the deployment's endpoint."""
    require_extra("serve")
    from trademl.pipeline.ladders import strategy_ladders
    from trademl.serve.background import START_S, WORKER_S, start_service
    from trademl.serve.deployments import current_deployment
    from trademl.train.model import load_model

    opened = session.workspace
    standing = current_deployment(deployment.endpoint, opened.ledger)
    model = load_model(opened.store.get(standing.model_id).file("model.tar.gz"))
    (served,) = strategy_ladders(session.strategy, opened, endpoints=[standing.endpoint])
    return start_service(
        [*command, "--workspace", str(opened.root)],
        opened.root,
        standing.endpoint,
        lambda url: _check(url, model, served),
        within_s=START_S + WORKER_S * ((workers or 1) - 1),
    )


def _check(url: str, model: Model, served: ServedStrategy) -> None:
    from trademl.serve.smoke import smoke_test

    smoke_test(url, model, ladder=served.ladder)


def _ask_service(workspace: Path | None, *, stop: bool, as_json: bool) -> None:
    from trademl.errors import ServeError
    from trademl.serve.background import find_service, stop_service
    from trademl.serve.client import ping

    with open_session(None, workspace, needs_file=False) as session:
        root = session.workspace.root
    if stop:
        service = stop_service(root)
        lines = [f"{service.what} at {service.url} has ended"]
        emit({**_service_facts(service), "status": "stopped"}, as_json=as_json, lines=lines)
        return
    found = find_service(root)
    if found is None or not found.is_running:
        emit({"status": "stopped"}, as_json=as_json, lines=["no server runs in the background"])
        return
    try:
        ping(found.url)
        health = "healthy"
    except ServeError as error:
        health = f"running, but {error}"
    lines = [
        f"{found.what} at {found.url}: {health} (process {found.process.pid}, log {found.log})"
    ]
    emit({**_service_facts(found), "status": health}, as_json=as_json, lines=lines)


def _service_facts(service: Service) -> dict[str, Any]:
    return {
        "url": service.url,
        "pid": service.process.pid,
        "what": service.what,
        "log": service.log,
    }


app.command("sagemaker")(deploy_sagemaker)


@app.command("ec2")
def ec2(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STRATEGY.toml...|MODEL]",
            help="Strategy files that share the machines, each with what stands at its endpoint "
            "and its ladder; or the id of a model for the strategy of --config, whose champion, "
            "else the newest model, is taken where nothing is given.",
        ),
    ] = None,
    launch: Annotated[
        bool, typer.Option("--launch", help="On a new machine, as [ec2] says.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print files and requests as JSON, send nothing.")
    ] = False,
    workers: options.Workers = None,
    capture: options.Capture = None,
    capture_percent: options.CapturePercent = None,
    log_requests: options.LogRequests = None,
    memory_mib: options.MemoryMib = None,
    emf: options.Emf = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Serve strategies in a container on machines of EC2, told over SSM.

    They replace together whatever the machines served. [aws], [hosting] and [ec2] are those of
    --config, else of the first strategy file.
    """
    from dataclasses import asdict, replace

    from trademl.aws.hosted import deploy_to_ec2, leaving_ec2, plan_on_ec2
    from trademl.cli.predict import chosen_model
    from trademl.pipeline.shipping import shipped_strategies

    files = strategy_files(what or [])
    told_by = config or (files[0] if files else None)
    with open_session(told_by, workspace) as session, session.workspace.lock():
        store, ledger, strategy = (
            session.workspace.store,
            session.workspace.ledger,
            session.strategy,
        )
        if files:
            shipped = shipped_strategies(read_files(files, workspace), session.workspace)
        else:
            model = chosen_model(session, what[0] if what else None)
            shipped = shipped_strategies([strategy], session.workspace, model=model)
        told = strategy.ec2.serve.changed(
            workers=workers,
            capture=capture,
            capture_percent=capture_percent,
            log_requests=log_requests,
            memory_mib=memory_mib,
            emf=emf,
        )
        machines = replace(strategy.ec2, serve=told)
        release = plan_on_ec2(
            shipped, strategy.aws, strategy.hosting, machines, store, launch=launch
        )
        left = leaving_ec2(release, ledger)
        if dry_run:
            requests = [{"RunInstances": release.launch_request}] if launch else []
            requests += [{"SendCommand": release.command_request}, {"files": release.files}]
            typer.echo("\n".join(_release_lines(release, left)), err=True)
            print_requests(requests, _ec2_cost(strategy.ec2.usd_per_hour, launch=launch))
            return
        deployed = deploy_to_ec2(release, store, ledger, launch=launch, progress=session.progress)
    lines = [f"{name}: {said}" for name, said in deployed.instances.items()]
    emit(asdict(deployed), as_json=json, lines=[*_release_lines(release, left), *lines])


def _release_lines(release: Release, left: list[str]) -> list[str]:
    """Return what a release serves, in words."""
    lines = [f"{release.id}: {len(release.strategies)} strategies at {release.place}"]
    lines += [f"  {strategy.name}: {strategy}" for strategy in release.strategies]
    return lines + ([f"  leaving: {', '.join(left)}"] if left else [])


def _ec2_cost(usd_per_hour: float | None, *, launch: bool) -> str:
    if not launch:
        return "nothing beyond the machines that run already"
    if usd_per_hour is None:
        return "cost unknown: set ec2.usd_per_hour to the machine's price"
    return f"{usd_per_hour:.4g} USD an hour, {usd_per_hour * 730:.2f} USD a month"
