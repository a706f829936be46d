"""``trademl deploy sagemaker``: one model, or several strategies, behind an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.sagemaker import print_requests
from trademl.cli.session import Session, open_session
from trademl.cli.strategy_files import read_files, strategy_files

if TYPE_CHECKING:
    from trademl.aws.endpoint_plan import EndpointPlan
    from trademl.serve.served import Mode
    from trademl.serve.strategies import ServedStrategy
    from trademl.store.artifacts import Artifact


def deploy_sagemaker(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STRATEGY.toml...|MODEL]",
            help="Strategy files that share one multi-model endpoint, each with the champion that "
            "stands at its endpoint; or the id of a model for the strategy of --config, whose "
            "champion, else the newest model, is taken where nothing is given.",
        ),
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
    """Make or update an endpoint on SageMaker, of one model or of several strategies.

    A model that is no champion becomes a shadow. Strategy files share one endpoint, which they
    replace together; [aws] and [hosting] are those of --config, else of the first file.
    """
    if dry_run + status + stop > 1:
        raise typer.BadParameter("--dry-run, --status and --stop exclude each other")
    files = strategy_files(what or [])
    told_by = config or (files[0] if files else None)
    if status or stop:
        _ask_endpoint(told_by, workspace, is_shared=bool(files), stop=stop, as_json=json)
    elif files:
        _deploy_together(files, told_by, workspace, dry_run=dry_run, as_json=json)
    else:
        model = what[0] if what else None
        _deploy_one(model, config, workspace, dry_run=dry_run, as_json=json)


def _deploy_one(
    model: str | None,
    config: Path | None,
    workspace: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Deploy a model at the endpoint of its strategy."""
    from dataclasses import asdict

    from trademl.aws.endpoint_plan import hourly_cost
    from trademl.aws.hosted import deploy_to_sagemaker, plan_hosting
    from trademl.aws.prices import load_prices
    from trademl.cli.predict import chosen_model
    from trademl.pipeline.shipping import has_ladder

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
            describe=_describe(session) if has_ladder(strategy) else None,
        )
        cost = hourly_cost(plan, load_prices(strategy.aws.region, session.workspace.root))
        if dry_run:
            print_requests(plan.requests, cost)
            return
        typer.echo(cost, err=True)
        deployed = deploy_to_sagemaker(plan, store, ledger, progress=session.progress)
    result = {
        **asdict(deployed),
        "score": deployed.score,
        "mode": plan.mode,
        "model": plan.model.artifact_id,
    }
    lines = [
        f"{deployed.endpoint}: {deployed.change}, {plan.model.artifact_id} is {plan.mode}",
        *(f"  {v['name']}: {v['instances']} x {v['image']}" for v in deployed.variants),
        f"  smoke prediction: {deployed.score:.6f}, as the model scores here",
    ]
    emit(result, as_json=as_json, lines=lines)


def _deploy_together(
    files: list[Path],
    config: Path | None,
    workspace: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Deploy strategies at one multi-model endpoint."""
    from dataclasses import asdict

    from trademl.aws.endpoint_plan import hourly_cost
    from trademl.aws.hosted import deploy_together, leaving_sagemaker
    from trademl.aws.multi_model_plan import plan_multi_model
    from trademl.aws.prices import load_prices
    from trademl.pipeline.shipping import shipped_strategies

    with open_session(config, workspace) as session, session.workspace.lock():
        store, ledger, told = (
            session.workspace.store,
            session.workspace.ledger,
            session.strategy,
        )
        shipped = shipped_strategies(read_files(files, workspace), session.workspace)
        plan = plan_multi_model(shipped, told.aws, told.hosting, store)
        left = leaving_sagemaker(plan, ledger)
        cost = hourly_cost(plan, load_prices(told.aws.region, session.workspace.root))
        if dry_run:
            typer.echo("\n".join(_shared_lines(plan, left)), err=True)
            print_requests(plan.requests, cost)
            return
        typer.echo(cost, err=True)
        deployed = deploy_together(plan, store, ledger, progress=session.progress)
    strategies = {
        one.called: {
            "model": one.artifact_id,
            "target": one.target,
            "score": deployed.scores[one.called],
        }
        for one in plan.answering.asked
    }
    release = plan.answering.artifact_id
    result = {**asdict(deployed), "release": release, "strategies": strategies, "left": left}
    lines = [
        f"{deployed.endpoint}: {deployed.change}",
        *_shared_lines(plan, left),
        *(f"  {v['name']}: {v['instances']} x {v['image']}" for v in deployed.variants),
        "  smoke predictions: "
        + ", ".join(f"{name} {score:.6f}" for name, score in deployed.scores.items())
        + ", as the models score here",
    ]
    emit(result, as_json=as_json, lines=lines)


def _shared_lines(plan: EndpointPlan, left: list[str]) -> list[str]:
    """Return what a multi-model endpoint serves, in words."""
    model = plan.answering
    lines = [f"{model.artifact_id}: {len(model.asked)} strategies at endpoint {plan.endpoint}"]
    lines += [f"  {one.called}: {one.artifact_id}, asked as {one.target}" for one in model.asked]
    return lines + ([f"  leaving: {', '.join(left)}"] if left else [])


def _describe(session: Session) -> Callable[[Artifact, Mode], ServedStrategy]:
    """Return what says how a model is served by the strategy of a session."""
    from trademl.pipeline.shipping import shipped_strategies

    def describe(model: Artifact, mode: Mode) -> ServedStrategy:
        (served,) = shipped_strategies(
            [session.strategy], session.workspace, model=model, mode=mode
        )
        return served

    return describe


def _ask_endpoint(
    config: Path | None, workspace: Path | None, *, is_shared: bool, stop: bool, as_json: bool
) -> None:
    from dataclasses import asdict

    from trademl.aws.hosted import sagemaker_status, stop_on_sagemaker
    from trademl.aws.multi_model_plan import ENDPOINT

    with open_session(config, workspace) as session, session.workspace.lock():
        strategy, ledger = session.strategy, session.workspace.ledger
        name = ENDPOINT if is_shared else strategy.name
        found = (
            stop_on_sagemaker(
                strategy.aws,
                strategy.hosting,
                ledger,
                strategy=name,
                progress=session.progress,
            )
            if stop
            else sagemaker_status(strategy.aws, strategy.hosting, strategy=name)
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
