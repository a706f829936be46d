"""``trademl features``: batches into labelled datasets."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

if TYPE_CHECKING:
    from trademl.etl.build import Engine

app = typer.Typer(
    help="Labelled datasets from batches.", no_args_is_help=True, rich_markup_mode=None
)


Dataset = Annotated[str | None, typer.Argument(help="Id of a dataset; the newest by default.")]


class EngineName(StrEnum):
    """Who makes the rows."""

    LOCAL = "local"
    SPARK = "spark"


@app.command("build")
def build(
    batch: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    engine: Annotated[
        EngineName, typer.Option(help="Who makes the rows; spark writes them in parts.")
    ] = EngineName.LOCAL,
    json: options.Json = False,
) -> None:
    """Build the features of a batch, split them by time, and write RecordIO."""
    from trademl.etl.build import build_features

    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        session.progress.step("features")
        dataset = build_features(
            store.newest("batch", batch),
            session.strategy.features,
            session.strategy.split,
            store,
            session.workspace.ledger,
            engine=_engine(engine),
            progress=session.progress,
        )
        session.progress.done()
    facts = dataset.metrics
    lines = [f"{dataset.id}: {facts['feature_dim']} columns in {dataset.path}"]
    lines += [
        f"  {name}: {s['rows']} rows, {s['label_rate']:.1%} earned money"
        for name, s in facts["splits"].items()
    ]
    lines.append(f"  left out: {_dropped(facts['dropped'])}")
    emit({"id": dataset.id, **facts}, as_json=json, lines=lines)


@app.command("verify")
def verify(
    dataset: Dataset = None,
    sample: Annotated[int, typer.Option(min=1, help="Rows to make again.")] = 200,
    every: Annotated[bool, typer.Option("--all", help="Make every row again.")] = False,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Prove a dataset free of look-ahead; a dataset that fails cannot be deployed."""
    from trademl.errors import DataError
    from trademl.etl.verify import verify_dataset

    with open_session(None, workspace, needs_file=False) as session, session.workspace.lock():
        store = session.workspace.store
        chosen = store.newest("dataset", dataset)
        session.progress.step("verify")
        proof = verify_dataset(
            chosen,
            store,
            session.workspace.ledger,
            sample=None if every else sample,
            progress=session.progress,
        )
        session.progress.done()
    found = proof.metrics
    verdict = "free of look-ahead" if found["is_proven"] else "NOT free of look-ahead"
    lines = [
        f"{chosen.id} is {verdict}: {found['n_cells']} cells and the labels of {found['n_rows']} "
        "rows made again from data cut off at their time"
    ]
    emit({"id": proof.id, **found}, as_json=json, lines=[*lines, *found["faults"]])
    if not found["is_proven"]:
        raise DataError(f"{chosen.id} failed its leak proof: {found['faults'][0]}")


@app.command("inspect")
def inspect(
    dataset: Dataset = None, workspace: options.Workspace = None, json: options.Json = False
) -> None:
    """Show what is in a dataset: rows, balance, overlap of labels, what was left out."""
    from trademl.etl.summary import inspect_dataset

    with open_session(None, workspace, needs_file=False) as session:
        chosen = session.workspace.store.newest("dataset", dataset)
        facts = inspect_dataset(chosen)
    lines = [f"{chosen.id}: {facts['n_orders']} orders, {facts['feature_dim']} columns"]
    lines += [
        f"  {name:<10} {s['rows']} rows, {s['label_rate']:.1%} earned money, mean PnL "
        f"{s['mean_pnl']:.4g}, uniqueness {s['uniqueness']:.3f}"
        for name, s in facts["splits"].items()
    ]
    lines.append(
        f"  spread {facts['median_spread']:g}, take profit {facts['median_take_profit']:g}, "
        f"stop loss {facts['median_stop_loss']:g} (medians, quote currency)"
    )
    lines.append("  left out: " + _dropped(facts["dropped"]))
    lines += ["  " + ", ".join(f"{k} {v:g}" for k, v in row.items()) for row in facts["first_rows"]]
    emit({"id": chosen.id, **facts}, as_json=json, lines=lines)


def _engine(name: EngineName) -> Engine | None:
    if name is EngineName.LOCAL:
        return None
    from trademl.etl.spark_engine import SparkEngine

    return SparkEngine()


def _dropped(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {why.replace('_', ' ')}" for why, n in counts.items())
