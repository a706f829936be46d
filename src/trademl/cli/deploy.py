"""``trademl deploy``: put a model behind an endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.sagemaker import print_requests
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


@app.command("sagemaker")
def sagemaker(
    model: Annotated[
        str | None, typer.Argument(help="Id; the strategy's champion, else the newest.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the requests as JSON and send nothing.")
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
