"""``trademl features``: batches into labelled datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trademl.cli import options
from trademl.cli.output import emit
from trademl.cli.progress import progress_display
from trademl.cli.session import open_session

if TYPE_CHECKING:
    from trademl.etl.build import Engine
    from trademl.store.artifacts import Artifact

Labels = Literal["recorded", "recomputed"]
EngineName = Literal["local", "spark"]
Format = Literal["recordio", "csv", "parquet"]

app = typer.Typer(
    help="Labelled datasets from batches.", no_args_is_help=True, rich_markup_mode=None
)


Dataset = Annotated[
    str | None,
    typer.Argument(help="Id of a dataset, or the folder of one; the newest by default."),
]


@app.command("build")
def build(
    batch: Annotated[str | None, typer.Argument(help="Id; the newest by default.")] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prices of a batch, a header-less price-*.csv, or OHLC bars; with --out.",
        ),
    ] = None,
    transactions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Transactions of a batch, a header-less deals-*.csv, or orders; with --out.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder of a dataset made from these two files."),
    ] = None,
    labels: Annotated[
        Labels | None,
        typer.Option(
            help="Keep recorded labels or settle orders again; recorded by default, recomputed for "
            "header-less files."
        ),
    ] = None,
    spread: Annotated[
        float | None, typer.Option(min=0, help="Ask minus bid of bars that have one price.")
    ] = None,
    tz: options.Zone = None,
    config: options.Config = None,
    workspace: options.Workspace = None,
    engine: Annotated[
        EngineName, typer.Option(help="Who makes the rows; spark writes them in parts.")
    ] = "local",
    table_format: Annotated[
        Format, typer.Option("--format", help="Of the files of rows; spark writes recordio.")
    ] = "recordio",
    json: options.Json = False,
) -> None:
    """Build the features of a batch, split its rows, and write them.

    With --prices, --transactions and --out, of two files instead, without a workspace.
    """
    made_by = _engine(engine, table_format)
    if prices or transactions or out:
        if not (prices and transactions and out) or batch:
            raise typer.BadParameter(
                "--prices, --transactions and --out go together, and without the id of a batch"
            )
        dataset = _from_files(
            prices, transactions, out, labels, config, made_by, spread=spread, timezone=tz
        )
    else:
        dataset = _from_batch(batch, labels, config, workspace, made_by)
    emit({"id": dataset.id, **dataset.metrics}, as_json=json, lines=_lines(dataset))


def _from_files(
    prices: Path,
    transactions: Path,
    out: Path,
    labels: Labels | None,
    config: Path | None,
    engine: Engine,
    *,
    spread: float | None,
    timezone: str | None,
) -> Artifact:
    from trademl.config import DEFAULT_FILE, load_settings
    from trademl.etl.from_files import build_features_from_files

    if config is None and Path(DEFAULT_FILE).is_file():
        config = Path(DEFAULT_FILE)
    strategy = load_settings(config).strategy
    with progress_display() as progress:
        progress.step("features")
        dataset = build_features_from_files(
            prices,
            transactions,
            out,
            strategy.features,
            strategy.split,
            strategy.costs,
            labels=labels,
            health=strategy.health,
            time_limit_s=strategy.orders.time_limit_s,
            spread=spread,
            timezone=timezone or strategy.feed.timezone,
            engine=engine,
            progress=progress,
        )
        progress.done()
    return dataset


def _from_batch(
    batch: str | None,
    labels: Labels | None,
    config: Path | None,
    workspace: Path | None,
    engine: Engine,
) -> Artifact:
    from trademl.etl.build import build_features
    from trademl.etl.labels import Labelling

    with open_session(config, workspace) as session, session.workspace.lock():
        store = session.workspace.store
        session.progress.step("features")
        dataset = build_features(
            store.newest("batch", batch),
            session.strategy.features,
            session.strategy.split,
            store,
            session.workspace.ledger,
            labelling=Labelling(labels or "recorded", session.strategy.costs),
            health=session.strategy.health,
            engine=engine,
            progress=session.progress,
        )
        session.progress.done()
    return dataset


def _lines(dataset: Artifact) -> list[str]:
    facts = dataset.metrics
    lines = [f"WARNING: {warning}" for warning in facts.get("warnings", [])]
    lines += [f"{dataset.id}: {facts['feature_dim']} columns in {dataset.path}"]
    lines += [
        f"  {name}: {s['rows']} rows, {s['label_rate']:.1%} earned money"
        for name, s in facts["splits"].items()
    ]
    labels = facts["labels"]
    lines.append(f"  left out: {_dropped(facts['dropped'])}")
    if labels["n_disagree"]:
        lines.append(
            f"  labels: {labels['source']}; recorded and recomputed differ in "
            f"{labels['n_disagree']} of {labels['n_compared']}"
        )
    lines += _doubt(labels)
    if (health := facts["health"])["n_touched"]:
        met = ", ".join(f"{n} {why}" for why, n in health["by_reason"].items() if n)
        kept = "left out" if health["policy"] == "drop" else "flagged"
        lines.append(
            f"  feed health: {health['n_touched']} orders touch a bad stretch ({met}): {kept}"
        )
    return lines


@app.command("verify")
def verify(
    dataset: Dataset = None,
    sample: Annotated[int, typer.Option(min=1, help="Rows to make again.")] = 200,
    every: Annotated[bool, typer.Option("--all", help="Make every row again.")] = False,
    workspace: options.Workspace = None,
    json: options.Json = False,
) -> None:
    """Prove a dataset free of look-ahead; a dataset that fails cannot be deployed.

    The dataset of a folder is taken into the workspace, where the evidence is kept.
    """
    from trademl.errors import DataError
    from trademl.etl.adopt import open_dataset
    from trademl.etl.verify import verify_dataset

    with open_session(None, workspace, needs_file=False) as session, session.workspace.lock():
        store = session.workspace.store
        chosen = open_dataset(dataset, store, session.workspace.ledger)
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

    chosen = _chosen(dataset, workspace)
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
    lines += _doubt(facts["labels"])
    lines += ["  " + ", ".join(f"{k} {v:g}" for k, v in row.items()) for row in facts["first_rows"]]
    emit({"id": chosen.id, **facts}, as_json=json, lines=lines)


def _chosen(dataset: str | None, workspace: Path | None) -> Artifact:
    from trademl.etl.adopt import dataset_at, known_dataset

    if dataset is not None and Path(dataset).is_dir():
        return dataset_at(Path(dataset))
    with open_session(None, workspace, needs_file=False) as session:
        return known_dataset(dataset, session.workspace.store)


def _engine(name: EngineName, table_format: Format) -> Engine:
    if name == "local":
        from trademl.etl.build import LocalEngine

        return LocalEngine(table_format)
    if table_format != "recordio":
        raise typer.BadParameter("--engine spark writes recordio only")
    from trademl.etl.spark_engine import SparkEngine

    return SparkEngine()


def _doubt(labels: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know of labels that were made on bars."""
    if (bars := labels.get("bars")) is None or bars["doubtful_share"] is None:
        return []
    return [
        f"  bars: {bars['n_doubtful']} orders ({bars['doubtful_share']:.1%}) ended on a bar that "
        "holds both barriers; they count as stopped"
    ]


def _dropped(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {why.replace('_', ' ')}" for why, n in counts.items())
