"""``trademl features``: batches into labelled datasets."""

from __future__ import annotations

from typing import Annotated

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.session import open_session

app = typer.Typer(
    help="Labelled datasets from batches.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _features() -> None:
    pass


@app.command("build")
def build(
    batch: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Build the features of a batch, split its rows, and write RecordIO."""
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
            progress=session.progress,
        )
        session.progress.done()
    facts = dataset.metrics
    lines = [f"WARNING: {warning}" for warning in facts.get("warnings", [])]
    lines += [f"{dataset.id}: {facts['feature_dim']} columns in {dataset.path}"]
    lines += [
        f"  {name}: {s['rows']} rows, {s['label_rate']:.1%} earned money"
        for name, s in facts["splits"].items()
    ]
    dropped = ", ".join(f"{n} {why.replace('_', ' ')}" for why, n in facts["dropped"].items())
    emit({"id": dataset.id, **facts}, as_json=json, lines=[*lines, f"  left out: {dropped}"])
