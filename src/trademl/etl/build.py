"""Build a labelled dataset from a batch: features, split, RecordIO."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trademl.etl._writer import BlockWriter
from trademl.etl.chunks import ROWS, ROWS_PER_GROUP, SplitJob, plan_chunks, split_features
from trademl.etl.dataset import SPLITS
from trademl.etl.examined import ExaminedOrders, Fate, examine_orders
from trademl.etl.features import FeatureSource, check_density
from trademl.etl.labels import LabelFigures, Labelling, label_facts, labels_table, words_of
from trademl.etl.order_health import health_facts
from trademl.etl.price_spool import PriceSpool, spool_quotes
from trademl.etl.recipe import FeatureRecipe, schema
from trademl.etl.recordio import RecordWriter
from trademl.etl.splits import SplitConfig, split_rows, split_warnings
from trademl.etl.tables import TableFormat, table_writer
from trademl.ingest.batch import OrderStream, open_batch
from trademl.ledger import Ledger, tables
from trademl.market.health import HealthConfig
from trademl.market.orders import ExitReason
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = "labels.parquet"
ORDERS_PER_GROUP = 1 << 20  # of labels.parquet
DROPPED = (
    Fate.NO_FULL_HISTORY,
    Fate.NO_EXECUTABLE_QUOTE,
    Fate.UNHEALTHY,
    Fate.CENSORED,
    Fate.PURGED,
    Fate.EMBARGOED,
)
LABEL_COLUMNS = (
    "order_id",
    "side",
    "as_of_ns",
    "entry_price",
    "exit_ns",
    "exit_price",
    "exit_reason",
    "fees",
    "pnl",
    "marked_pnl",
    "label",
    "recorded_label",
    "recomputed_label",
    "history_health",
    "holding_health",
)


class Engine(Protocol):
    """What makes the rows of a dataset: all engines give the same cells in the same order."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What of the engine shows in a dataset's files; part of its id."""

    def write_splits(self, job: SplitJob, progress: Progress) -> None:
        """Write every split into the dataset's folder."""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Chunk after chunk in the calling process: the matrix is never held.

    Parameters
    ----------
    table_format : {"recordio", "csv", "parquet"}
        Of the splits' files; CSV has the label first and no header, as SageMaker takes it.
    """

    table_format: TableFormat = "recordio"

    @property
    def parameters(self) -> dict[str, Any]:
        """The format where it is not RecordIO."""
        return {} if self.table_format == "recordio" else {"format": self.table_format}

    def write_splits(self, job: SplitJob, progress: Progress) -> None:
        """Write one file per split."""
        columns = [column["name"] for column in job.recipe.columns()]
        with ExitStack() as files:
            writer = {
                name: files.enter_context(
                    table_writer(
                        job.folder / f"{name}.{self.table_format}", columns, n_workers=workers()
                    )
                )
                for name in SPLITS
            }
            for done, (chunk, rows) in enumerate(job.chunks, 1):
                for name, source, label_N in split_features(job, chunk, rows):
                    append_rows(writer[name], source, label_N)
                progress.advance(done, len(job.chunks))


def build_features(
    batch: Artifact,
    recipe: FeatureRecipe,
    split: SplitConfig,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    labelling: Labelling = Labelling(),  # noqa: B008 - frozen
    health: HealthConfig = HealthConfig(),  # noqa: B008 - frozen
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Join a batch's orders with its prices and publish the labelled dataset.

    Parameters
    ----------
    labelling : Labelling
        Whether labels stand as the batch records them, or are made again, and at what costs.
    health : HealthConfig
        What counts as a bad stretch of prices, and what becomes of orders that touch one.
    engine : Engine, optional
        Who makes the rows: this process by default.

    Raises
    ------
    DataError
        If the prices are too sparse for the recipe, or too few rows are left to split.

    Notes
    -----
    Causal: the features of a row read quotes up to its as-of time, its label up to its exit.
    """
    engine = engine or LocalEngine()
    parameters = {
        **engine.parameters,
        "features": asdict(recipe),
        "split": asdict(split),
        "labels": asdict(labelling),
        "health": asdict(health),
    }
    identity = artifact_id("dataset", {"batch": batch.id}, parameters)
    if (dataset := store.find(identity)) is None:
        with store.create(identity, parents=[batch.id], parameters=parameters) as draft:
            draft.metrics.update(
                write_dataset(
                    draft.path,
                    open_batch(batch),
                    recipe,
                    split,
                    labelling,
                    health,
                    progress or Silent(),
                    engine=engine,
                )
            )
        dataset = store.get(identity)
    record_dataset(dataset, batch.id, ledger)
    return dataset


def write_dataset(
    folder: Path,
    orders: OrderStream,
    recipe: FeatureRecipe,
    split: SplitConfig,
    labelling: Labelling,
    health: HealthConfig,
    progress: Progress,
    *,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Write a dataset's files into a folder, and return its facts.

    Notes
    -----
    Quotes are held. Of each order a few numbers are, for as long as rows are split; the rest of it
    and all cells pass through the disk.
    """
    check_density(orders.quotes, recipe)
    with TemporaryDirectory(prefix=".scratch-", dir=folder) as name:
        scratch = Path(name)
        prices = spool_quotes(orders.quotes, scratch / "prices.parquet")
        (scratch / "orders").mkdir()
        found, fate_N = examine_orders(orders, recipe, labelling, health, scratch / "orders")
        warnings = _split(found, fate_N, recipe, split)
        _write_labels(folder / LABELS, found, fate_N)
        _write_row_keys(folder / ROWS, found, fate_N, recipe)
        facts = _facts(found, fate_N, recipe, health) | {"warnings": warnings}
        quote_index = found.column("quote_index")[fate_N <= Fate.EMBARGOED]
        _write_splits(folder, prices, quote_index, recipe, engine or LocalEngine(), progress)
    (folder / "schema.json").write_text(json.dumps(schema(recipe), indent=1))
    return facts


def _split(
    found: ExaminedOrders, fate_N: NDArray[np.int8], recipe: FeatureRecipe, config: SplitConfig
) -> list[str]:
    """Put the part of each row into ``fate_N``, and return what a reader must be told."""
    is_row_N = fate_N == Fate.ROW
    as_of_ns = found.as_of_ns()[is_row_N]
    start_ns, exit_ns = recipe.start_ns(as_of_ns), found.column("exit_ns")[is_row_N]
    part_N = split_rows(as_of_ns, start_ns, exit_ns, config)
    fate_N[is_row_N] = part_N
    return split_warnings(part_N, start_ns, exit_ns, config)


def _write_splits(
    folder: Path,
    prices: PriceSpool,
    quote_index: NDArray[np.int64],
    recipe: FeatureRecipe,
    engine: Engine,
    progress: Progress,
) -> None:
    chunks = plan_chunks(prices, recipe.lookback_ns)
    pieces = [(chunk, chunk.rows(quote_index, prices)) for chunk in chunks]
    filled = [(chunk, rows) for chunk, rows in pieces if rows.stop > rows.start]
    engine.write_splits(SplitJob(folder, prices, recipe, filled), progress)


def write_split(path: Path, source: FeatureSource, label_N: NDArray[np.float32]) -> None:
    """Write features and labels as RecordIO block by block: the matrix is never held."""
    with RecordWriter(path, source.feature_dim, with_label=True, n_workers=workers()) as writer:
        append_rows(writer, source, label_N)


def append_rows(writer: BlockWriter, source: FeatureSource, label_N: NDArray[np.float32]) -> None:
    """Append features and labels to a file of rows, block by block."""

    def put(
        start: int, stop: int, features_BD: NDArray[np.float32], label_B: NDArray[np.float32] | None
    ) -> None:
        source.fill(features_BD, start)
        if label_B is not None:
            label_B[:] = label_N[start:stop]

    writer.fill(len(source), put)


def workers() -> int:
    """Return how many threads make rows: more than a few only wait for each other's writes."""
    return min(len(os.sched_getaffinity(0)), 4)


def _write_labels(path: Path, found: ExaminedOrders, fate_N: NDArray[np.int8]) -> None:
    """Write one line for every order, whatever became of it."""
    starts = range(0, len(found), ORDERS_PER_GROUP)
    _write_groups(path, (_labels(found, fate_N, start) for start in starts))


def _labels(found: ExaminedOrders, fate_N: NDArray[np.int8], start: int) -> pa.Table:
    stop = min(start + ORDERS_PER_GROUP, len(found))
    names = [*LABEL_COLUMNS, *(["is_ambiguous"] if found.are_on_bars else [])]
    table = labels_table(found.rows(start, stop), names)
    return table.append_column("split", words_of(Fate, fate_N[start:stop]))


def _write_row_keys(
    path: Path, found: ExaminedOrders, fate_N: NDArray[np.int8], recipe: FeatureRecipe
) -> None:
    """Write one line for each row, and for what was purged and embargoed."""
    row_N = np.flatnonzero(fate_N <= Fate.EMBARGOED)
    starts = range(0, len(row_N), ROWS_PER_GROUP)
    groups = (row_N[start : start + ROWS_PER_GROUP] for start in starts)
    _write_groups(path, (_row_keys(found, fate_N, group, recipe) for group in groups))


def _row_keys(
    found: ExaminedOrders,
    fate_N: NDArray[np.int8],
    row_N: NDArray[np.int64],
    recipe: FeatureRecipe,
) -> pa.Table:
    import pyarrow as pa

    first, last = int(row_N[0]), int(row_N[-1])
    columns = {name: c[row_N - first] for name, c in found.rows(first, last + 1).items()}
    names = ("pnl", "label", "history_health", "holding_health")
    return pa.table(
        {
            "order_id": columns["order_id"],
            "quote_index": columns["quote_index"],
            "as_of_ns": columns["as_of_ns"],
            "start_ns": recipe.start_ns(columns["as_of_ns"]),
            "exit_ns": columns["exit_ns"],
            "exit_reason": words_of(ExitReason, columns["exit_reason"]),
            **{name: columns[name] for name in names},
            "split": words_of(Fate, fate_N[row_N]),
        }
    )


def _write_groups(path: Path, groups: Iterator[pa.Table]) -> None:
    import pyarrow.parquet as pq

    first = next(groups)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as file:
        for table in chain([first], groups):
            file.write_table(table, row_group_size=len(table))


def _facts(
    found: ExaminedOrders, fate_N: NDArray[np.int8], recipe: FeatureRecipe, health: HealthConfig
) -> dict[str, Any]:
    labels, as_of_ns = found.figures(), found.as_of_ns()
    of_split = {name: fate_N == part for part, name in enumerate(SPLITS)}
    return {
        "n_orders": len(found),
        "feature_dim": recipe.feature_dim,
        "schema_hash": schema(recipe)["hash"],
        "splits": {name: _split_facts(labels, as_of_ns, of_N) for name, of_N in of_split.items()},
        "label_rate": float(labels.label_N[labels.is_labelled].mean()),
        **{
            f"median_{name}": float(np.median(found.column(name), overwrite_input=True))
            for name in ("spread", "take_profit", "stop_loss")
        },
        "dropped": {fate.name.lower(): int((fate_N == fate).sum()) for fate in DROPPED},
        "labels": label_facts(labels),
        "health": health_facts(found.health(), labels, health),
    }


def _split_facts(
    labels: LabelFigures, as_of_ns: NDArray[np.int64], of_N: NDArray[np.bool_]
) -> dict[str, Any]:
    when_ns = as_of_ns[of_N]
    return {
        "rows": len(when_ns),
        "label_rate": float(labels.label_N[of_N].mean()),
        "mean_pnl": float(labels.pnl_N[of_N].mean()),
        "from_ns": int(when_ns[0]),
        "to_ns": int(when_ns[-1]),
    }


def record_dataset(dataset: Artifact, batch_id: str, ledger: Ledger) -> None:
    """Write a dataset's row into the ledger."""
    facts = dict(dataset.metrics)
    rows = {name: facts["splits"][name]["rows"] for name in SPLITS}
    ledger.record(
        tables.Dataset(
            id=dataset.id,
            batch_id=batch_id,
            n_train=rows["train"],
            n_validation=rows["validation"],
            n_test=rows["test"],
            feature_dim=facts["feature_dim"],
            facts=facts,
            path=str(dataset.path),
        )
    )
