"""``trademl tune`` and ``trademl train``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trademl.cli import networks, options, sagemaker
from trademl.cli.output import emit
from trademl.cli.session import open_session

if TYPE_CHECKING:
    from trademl.aws.plan import JobPlan
    from trademl.pipeline.strategy import Strategy
    from trademl.store.artifacts import Artifact

Dataset = Annotated[
    str | None, typer.Argument(help="Id of a dataset, or its folder; the newest by default.")
]


def tune(
    dataset: Dataset = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
    on: sagemaker.On = "local",
    dry_run: sagemaker.DryRun = False,
    wait: sagemaker.Wait = True,
    retry: sagemaker.Retry = False,
    max_cost: sagemaker.MaxCost = None,
) -> None:
    """Search for hyperparameters with the strategy's tuning job."""
    from trademl.etl.adopt import open_dataset
    from trademl.train.describe import describe_tuning_job
    from trademl.train.jobs import tune_dataset

    flags = sagemaker.Flags(dry_run, wait, retry, max_cost)
    if on == "sagemaker":
        sent = sagemaker.launch(_tuning_plan, dataset, config, workspace, flags, as_json=json)
        if sent is not None:
            _emit_study(sent, {}, json)
        return
    flags.refuse_elsewhere()
    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        study = tune_dataset(
            open_dataset(dataset, store, session.workspace.ledger),
            session.strategy.tuning,
            store,
            session.workspace.ledger,
            seed=session.strategy.seed,
            progress=session.progress,
        )
    _emit_study(study, describe_tuning_job(study), json)


def train(
    dataset: Dataset = None,
    hp: Annotated[
        list[str] | None,
        typer.Option("--hp", metavar="NAME=VALUE", help="A hyperparameter of Linear Learner."),
    ] = None,
    ml_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Train the job that SageMaker laid out below DIR. Without it /opt/ml is looked "
            "at, where no dataset is given.",
        ),
    ] = None,
    network: networks.Network = False,
    distribution: networks.DistributionFile = None,
    nproc: networks.Nproc = None,
    explain_plan: networks.ExplainPlan = False,
    device_memory: networks.DeviceMemory = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
    on: sagemaker.On = "local",
    dry_run: sagemaker.DryRun = False,
    wait: sagemaker.Wait = True,
    retry: sagemaker.Retry = False,
    max_cost: sagemaker.MaxCost = None,
) -> None:
    """Train one model: the tuning job's static hyperparameters, and those given.

    In a container that SageMaker started it trains the container's job instead. With --network,
    --distribution or --nproc it trains the strategy's network, on one process or several.
    """
    from trademl.etl.adopt import open_dataset
    from trademl.train.container import ML_ROOT, is_container
    from trademl.train.describe import describe_training_job
    from trademl.train.jobs import parse_assignments, train_dataset
    from trademl.train.search_space import parse_tuning_config

    if device_memory is not None and not explain_plan:
        raise typer.BadParameter("--device-memory goes with --explain-plan")
    if network or distribution or nproc is not None or explain_plan:
        if hp:
            raise typer.BadParameter("--hp is for Linear Learner: a network has [training]")
        if on != "local":
            raise typer.BadParameter(f"--on {on} is for Linear Learner: a network trains here")
        asked = networks.Asked(dataset, distribution, nproc, config, workspace, json)
        if explain_plan:
            networks.explain_plan(asked, device_memory)
        else:
            networks.train_network(asked)
        return
    if ml_root is not None or (dataset is None and not hp and is_container(ML_ROOT)):
        _train_in_container(ml_root or ML_ROOT)
        return
    given = parse_assignments(hp or [])
    flags = sagemaker.Flags(dry_run, wait, retry, max_cost)
    if on == "sagemaker":
        make_plan = partial(_training_plan, given)
        sent = sagemaker.launch(make_plan, dataset, config, workspace, flags, as_json=json)
        if sent is not None:
            _emit_study(sent, {}, json)
        return
    flags.refuse_elsewhere()
    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        static = parse_tuning_config(session.strategy.tuning).static
        study = train_dataset(
            open_dataset(dataset, store, session.workspace.ledger),
            {**static, **given},
            store,
            session.workspace.ledger,
            seed=session.strategy.seed,
            progress=session.progress,
        )
    _emit_study(study, describe_training_job(study), json)


def _tuning_plan(dataset: Artifact, strategy: Strategy) -> JobPlan:
    from trademl.aws.plan import plan_tuning

    return plan_tuning(
        dataset, strategy.tuning, strategy.aws, seed=strategy.seed, strategy=strategy.name
    )


def _training_plan(given: Mapping[str, str], dataset: Artifact, strategy: Strategy) -> JobPlan:
    from trademl.aws.plan import plan_training
    from trademl.train.search_space import parse_tuning_config

    static = parse_tuning_config(strategy.tuning).static
    return plan_training(
        dataset, {**static, **given}, strategy.aws, seed=strategy.seed, strategy=strategy.name
    )


def _train_in_container(root: Path) -> None:
    """Train a container's job; its log goes to stdout, where the platform reads it."""
    from trademl.config import load_settings
    from trademl.train.container import train_in_container

    def write(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    train_in_container(root, write, seed=load_settings().strategy.seed)


def _emit_study(study: Artifact, described: Mapping[str, Any], as_json: bool) -> None:
    found = study.metrics
    lines = [f"WARNING: {warning}" for warning in found["warnings"]]
    lines.append(f"{study.id}: {found['objective']} by trial (best: {found['best_trial']})")
    lines += [f"  {t['number']:>3}  {_shown(t)}" for t in found["trials"]]
    emit(
        {"id": study.id, **found, **described},
        as_json=as_json,
        lines=[*lines, f"next: trademl models select {study.id}"],
    )


def _shown(trial: Mapping[str, Any]) -> str:
    if trial["failure"] is not None:
        return f"failed: {trial['failure']}"
    value = "undefined" if trial["objective"] is None else f"{trial['objective']:.6g}"
    return f"{value}  stopped early" if trial["status"] == "Stopped" else value
