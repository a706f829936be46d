"""``trademl tune`` and ``trademl train``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from trademl.cli import options, sagemaker
from trademl.cli.output import emit
from trademl.cli.session import open_session

if TYPE_CHECKING:
    from trademl.aws.plan import JobPlan
    from trademl.pipeline.strategy import Strategy
    from trademl.store.artifacts import Artifact

Dataset = Annotated[str | None, typer.Argument(help="Id of a dataset; the newest by default.")]


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
    from trademl.train.jobs import tune_dataset

    flags = sagemaker.Flags(dry_run, wait, retry, max_cost)
    if on == "sagemaker":
        sent = sagemaker.launch(_tuning_plan, dataset, config, workspace, flags, as_json=json)
        if sent is not None:
            _emit_study(sent, json)
        return
    flags.refuse_elsewhere()
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
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
    on: sagemaker.On = "local",
    dry_run: sagemaker.DryRun = False,
    wait: sagemaker.Wait = True,
    retry: sagemaker.Retry = False,
    max_cost: sagemaker.MaxCost = None,
) -> None:
    """Train one model: the tuning job's static hyperparameters, and those given."""
    from trademl.train.jobs import parse_assignments, train_dataset
    from trademl.train.search_space import parse_tuning_config

    given = parse_assignments(hp or [])
    flags = sagemaker.Flags(dry_run, wait, retry, max_cost)
    if on == "sagemaker":
        make_plan = partial(_training_plan, given)
        sent = sagemaker.launch(make_plan, dataset, config, workspace, flags, as_json=json)
        if sent is not None:
            _emit_study(sent, json)
        return
    flags.refuse_elsewhere()
    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        study = train_dataset(
            store.newest("dataset", dataset),
            {**parse_tuning_config(session.strategy.tuning).static, **given},
            store,
            session.workspace.ledger,
            seed=session.strategy.seed,
            progress=session.progress,
        )
    _emit_study(study, json)


def _tuning_plan(dataset: Artifact, strategy: Strategy) -> JobPlan:
    from trademl.aws.plan import plan_tuning

    return plan_tuning(
        dataset, strategy.tuning, strategy.aws, seed=strategy.seed, strategy=strategy.name
    )


def _training_plan(given: Mapping[str, str], dataset: Artifact, strategy: Strategy) -> JobPlan:
    from trademl.aws.plan import plan_training
    from trademl.aws.tuning_request import read_tuning_request

    static = read_tuning_request(strategy.tuning, strategy.seed).static
    return plan_training(
        dataset, {**static, **given}, strategy.aws, seed=strategy.seed, strategy=strategy.name
    )


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
