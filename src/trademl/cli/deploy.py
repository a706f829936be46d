"""``trademl deploy``: put a model behind an endpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.sagemaker import print_requests
from trademl.cli.session import open_session
from trademl.errors import require_extra

if TYPE_CHECKING:
    from trademl.ledger.tables import Deployment
    from trademl.serve.background import Service
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
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Deploy a model on this machine: live if it is the champion, else in shadow mode."""
    if start + status + stop > 1:
        raise typer.BadParameter("--start, --status and --stop exclude each other")
    if status or stop:
        _ask_service(workspace, stop=stop, as_json=json)
        return
    from trademl.serve.background import refuse_second
    from trademl.serve.deployments import deploy
    from trademl.train.registry import champion

    with open_session(config, workspace) as session, session.workspace.lock():
        store, strategy = session.workspace.store, session.strategy
        if start:
            refuse_second(session.workspace.root)
        live = champion(session.workspace.ledger, strategy.name)
        chosen = store.newest("model", model or live)
        deployment = deploy(chosen, strategy.serving.endpoint, store, session.workspace.ledger)
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
    if start:
        service = _start(deployment, config, workspace, port)
        result["service"] = _service_facts(service)
        lines[1:] = [f"serving at {service.url}, process {service.process.pid}, log {service.log}"]
    emit(result, as_json=json, lines=lines)


def _start(
    deployment: Deployment, config: Path | None, workspace: Path | None, port: int
) -> Service:
    """Serve in the background what stands at the deployment's endpoint."""
    require_extra("serve")
    from trademl.serve.background import start_service
    from trademl.serve.deployments import current_deployment
    from trademl.train.model import load_model

    with open_session(config, workspace) as session, session.workspace.lock():
        opened = session.workspace
        standing = current_deployment(deployment.endpoint, opened.ledger)
        model = load_model(opened.store.get(standing.model_id).file("model.tar.gz"))
        command = [sys.executable, "-m", "trademl", "serve", "--port", str(port)]
        command += ["--log-format", "text"]  # whose first line says where it listens
        command += ["--endpoint", standing.endpoint, "--workspace", str(opened.root)]
        if config is not None:
            command += ["--config", str(config.resolve())]
        return start_service(
            command, opened.root, standing.endpoint, lambda url: _check(url, model)
        )


def _check(url: str, model: Model) -> None:
    from trademl.serve.smoke import smoke_test

    smoke_test(url, model)


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


@app.command("sagemaker")
def sagemaker(
    model: Annotated[
        str | None, typer.Argument(help="Id; the strategy's champion, else the newest.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the requests as JSON and send nothing.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Say how the endpoint is.")] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Delete the endpoint: it costs nothing any more.")
    ] = False,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Make or update an endpoint on SageMaker; a model that is no champion becomes a shadow."""
    from dataclasses import asdict

    from trademl.aws.endpoint_plan import hourly_cost
    from trademl.aws.hosted import deploy_to_sagemaker, plan_hosting
    from trademl.aws.prices import load_prices
    from trademl.cli.predict import chosen_model

    if dry_run + status + stop > 1:
        raise typer.BadParameter("--dry-run, --status and --stop exclude each other")
    if status or stop:
        _ask_endpoint(config, workspace, stop=stop, as_json=json)
        return
    with open_session(config, workspace) as session, session.workspace.lock():
        store, ledger, strategy = (
            session.workspace.store,
            session.workspace.ledger,
            session.strategy,
        )
        plan = plan_hosting(
            chosen_model(session, model),
            strategy.aws,
            strategy.hosting,
            store,
            ledger,
            strategy=strategy.name,
        )
        cost = hourly_cost(plan, load_prices(strategy.aws.region, session.workspace.root))
        if dry_run:
            print_requests(plan.requests, cost)
            return
        typer.echo(cost, err=True)
        deployed = deploy_to_sagemaker(plan, store, ledger, progress=session.progress)
    result = {**asdict(deployed), "mode": plan.mode, "model": plan.model.artifact_id}
    lines = [
        f"{deployed.endpoint}: {deployed.change}, {plan.model.artifact_id} is {plan.mode}",
        *(f"  {v['name']}: {v['instances']} x {v['image']}" for v in deployed.variants),
        f"  smoke prediction: {deployed.score:.6f}, as the model scores here",
    ]
    emit(result, as_json=json, lines=lines)


def _ask_endpoint(
    config: Path | None, workspace: Path | None, *, stop: bool, as_json: bool
) -> None:
    from dataclasses import asdict

    from trademl.aws.hosted import sagemaker_status, stop_on_sagemaker

    with open_session(config, workspace) as session, session.workspace.lock():
        strategy, ledger = session.strategy, session.workspace.ledger
        found = (
            stop_on_sagemaker(
                strategy.aws,
                strategy.hosting,
                ledger,
                strategy=strategy.name,
                progress=session.progress,
            )
            if stop
            else sagemaker_status(strategy.aws, strategy.hosting, strategy=strategy.name)
        )
    said = "deleted" if stop else found.status
    lines = [
        f"{found.endpoint}: {said}" + (f" ({found.reason})" if found.reason else ""),
        *(
            f"  {v['name']}: {v['instances']} machines, weight {v['weight']}"
            for v in found.variants
        ),
    ]
    emit({**asdict(found), "status": said}, as_json=as_json, lines=lines)


@app.command("ec2")
def ec2(
    model: Annotated[
        str | None, typer.Argument(help="Id; the strategy's champion, else the newest.")
    ] = None,
    launch: Annotated[
        bool, typer.Option("--launch", help="On a new machine, as [ec2] says.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print files and requests as JSON, send nothing.")
    ] = False,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Serve a model in a container on machines of EC2, told over SSM."""
    from dataclasses import asdict

    from trademl.aws.hosted import deploy_to_ec2, plan_on_ec2
    from trademl.cli.predict import chosen_model

    with open_session(config, workspace) as session:
        store, ledger, strategy = (
            session.workspace.store,
            session.workspace.ledger,
            session.strategy,
        )
        chosen = chosen_model(session, model)
        release = plan_on_ec2(
            chosen,
            strategy.aws,
            strategy.hosting,
            strategy.ec2,
            store,
            ledger,
            strategy=strategy.name,
            endpoint=strategy.serving.endpoint,
        )
        if dry_run:
            requests = [{"RunInstances": release.launch_request}] if launch else []
            requests += [{"SendCommand": release.command_request}, {"files": release.files}]
            print_requests(requests, _ec2_cost(strategy.ec2.usd_per_hour, launch=launch))
            return
        deployed = deploy_to_ec2(release, store, ledger, launch=launch, progress=session.progress)
    lines = [f"{deployed.release} on {name}: {said}" for name, said in deployed.instances.items()]
    emit({**asdict(deployed), "model": chosen.id}, as_json=json, lines=lines)


def _ec2_cost(usd_per_hour: float | None, *, launch: bool) -> str:
    if not launch:
        return "nothing beyond the machines that run already"
    if usd_per_hour is None:
        return "cost unknown: set ec2.usd_per_hour to the machine's price"
    return f"{usd_per_hour:.4g} USD an hour, {usd_per_hour * 730:.2f} USD a month"
