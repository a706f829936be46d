"""``trademl tune`` and ``trademl train``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trademl.cli import networks, options
from trademl.cli.output import emit
from trademl.cli.session import open_session

if TYPE_CHECKING:
    from trademl.store.artifacts import Artifact

Dataset = Annotated[str | None, typer.Argument(help="Id of a dataset; the newest by default.")]


def tune(
    dataset: Dataset = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Search for hyperparameters with the strategy's tuning job."""
    from trademl.train.jobs import tune_dataset

    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        study = tune_dataset(
            store.newest("dataset", dataset),
            session.strategy.tuning,
            store,
            session.workspace.ledger,
            seed=session.strategy.seed,
            progress=session.progress,
        )
    _emit_study(study, json)


def train(
    dataset: Dataset = None,
    hp: Annotated[
        list[str] | None,
        typer.Option("--hp", metavar="NAME=VALUE", help="A hyperparameter of Linear Learner."),
    ] = None,
    network: networks.Network = False,
    distribution: networks.DistributionFile = None,
    nproc: networks.Nproc = None,
    explain_plan: networks.ExplainPlan = False,
    device_memory: networks.DeviceMemory = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Train one model: the tuning job's static hyperparameters, and those given.

    With --network, --distribution or --nproc the strategy's network instead, on one process or
    several.
    """
    from trademl.train.jobs import parse_assignments, train_dataset
    from trademl.train.search_space import parse_tuning_config

    if device_memory is not None and not explain_plan:
        raise typer.BadParameter("--device-memory goes with --explain-plan")
    if network or distribution or nproc is not None or explain_plan:
        if hp:
            raise typer.BadParameter("--hp is for Linear Learner: a network has [training]")
        asked = networks.Asked(dataset, distribution, nproc, config, workspace, json)
        if explain_plan:
            networks.explain_plan(asked, device_memory)
        else:
            networks.train_network(asked)
        return
    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        static = parse_tuning_config(session.strategy.tuning).static
        study = train_dataset(
            store.newest("dataset", dataset),
            {**static, **parse_assignments(hp or [])},
            store,
            session.workspace.ledger,
            seed=session.strategy.seed,
            progress=session.progress,
        )
    _emit_study(study, json)


def _emit_study(study: Artifact, as_json: bool) -> None:
    found = study.metrics
    lines = [f"WARNING: {warning}" for warning in found["warnings"]]
    lines.append(f"{study.id}: {found['objective']} by trial (best: {found['best_trial']})")
    lines += [f"  {t['number']:>3}  {t['failure'] or t['objective']}" for t in found["trials"]]
    emit(
        {"id": study.id, **found},
        as_json=as_json,
        lines=[*lines, f"next: trademl models select {study.id}"],
    )
