"""Build a labelled dataset from a batch: features, split, RecordIO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trademl.etl._writer import BlockWriter
from trademl.etl.chunks import ROWS, ROWS_PER_GROUP, SplitJob, plan_chunks, split_features
from trademl.etl.dataset import SPLITS
from trademl.etl.features import FeatureSource, check_density, usable_rows
from trademl.etl.labels import (
    Labelling,
    Labels,
    exit_reasons,
    label_batch,
    label_facts,
    write_labels,
)
from trademl.etl.order_health import OrderHealth, health_facts, order_health
from trademl.etl.price_spool import spool_quotes
from trademl.etl.recipe import FeatureRecipe, schema
from trademl.etl.recordio import RecordWriter
from trademl.etl.splits import Part, SplitConfig, split_rows, split_warnings
from trademl.etl.tables import TableFormat, table_writer
from trademl.ingest.batch import Batch, read_batch
from trademl.ledger import Ledger, tables
from trademl.market.health import HealthConfig
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id

KEPT = ""
DROPPED = (
    "no_full_history",
    "no_executable_quote",
    "unhealthy",
    "censored",
    Part.PURGED.name.lower(),
    Part.EMBARGOED.name.lower(),
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
                        job.folder / f"{name}.{self.table_format}", columns, write_behind=True
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
                    read_batch(batch),
                    recipe,
                    split,
                    labelling,
                    health,
                    progress or Silent(),
                    engine=engine,
                )
            )
        dataset = store.get(identity)
    _record(dataset, batch, ledger)
    return dataset


def write_dataset(
    folder: Path,
    batch: Batch,
    recipe: FeatureRecipe,
    split: SplitConfig,
    labelling: Labelling,
    health: HealthConfig,
    progress: Progress,
    *,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Write a dataset's files into a folder, and return its facts."""
    check_density(batch.quotes)
    as_of_index_N = batch.orders.quote_index
    kept_N = usable_rows(batch.quotes, as_of_index_N, recipe)
    labels = label_batch(batch, labelling)
    met = order_health(batch, labels, recipe.lookback_ns, health)
    fate_N = _first_reason(
        {
            "no_full_history": ~kept_N,
            "no_executable_quote": ~batch.quotes.is_executable[as_of_index_N],
            "unhealthy": met.touches & (health.policy == "drop"),
            "censored": ~labels.is_labelled,
        }
    )
    row_N = np.flatnonzero(fate_N == KEPT)
    rows = _row_keys(batch, labels, met, row_N, recipe)
    part_N = split_rows(rows["as_of_ns"], rows["start_ns"], rows["exit_ns"], split)
    _write_row_keys(folder / ROWS, rows, part_N)
    _write_splits(folder, batch, rows["quote_index"], recipe, engine or LocalEngine(), progress)
    fate_N[row_N] = _part_names(part_N)
    write_labels(folder / "labels.parquet", batch, labels, _health_columns(met) | {"split": fate_N})
    (folder / "schema.json").write_text(json.dumps(schema(recipe), indent=1))
    return _facts(batch, labels, rows, part_N, recipe) | {
        "dropped": {reason: int((fate_N == reason).sum()) for reason in DROPPED},
        "labels": label_facts(labels),
        "health": health_facts(met, labels, health),
        "warnings": split_warnings(part_N, rows["start_ns"], rows["exit_ns"], split),
    }


def _first_reason(dropped: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.object_]:
    """Return why each order is no row, by the first reason that holds, or `KEPT`."""
    return np.select(list(dropped.values()), list(dropped), KEPT).astype(object)


def _health_columns(met: OrderHealth) -> dict[str, NDArray[np.uint8]]:
    return {"history_health": met.history_N, "holding_health": met.holding_N}


def _write_splits(
    folder: Path,
    batch: Batch,
    quote_index: NDArray[np.int64],
    recipe: FeatureRecipe,
    engine: Engine,
    progress: Progress,
) -> None:
    with TemporaryDirectory(prefix=".prices-", dir=folder) as scratch:
        prices = spool_quotes(batch.quotes, Path(scratch) / "prices.parquet")
        chunks = plan_chunks(prices, recipe.lookback_ns)
        pieces = [(chunk, chunk.rows(quote_index, prices)) for chunk in chunks]
        filled = [(chunk, rows) for chunk, rows in pieces if rows.stop > rows.start]
        engine.write_splits(SplitJob(folder, prices, recipe, filled), progress)


def write_split(path: Path, source: FeatureSource, label_N: NDArray[np.float32]) -> None:
    """Write features and labels as RecordIO block by block: the matrix is never held."""
    with RecordWriter(path, source.feature_dim, with_label=True, write_behind=True) as writer:
        append_rows(writer, source, label_N)


def append_rows(writer: BlockWriter, source: FeatureSource, label_N: NDArray[np.float32]) -> None:
    """Append features and labels to a file of rows, block by block."""
    for start, stop, features_ND, out_label_N in writer.blocks(len(source)):
        source.fill(features_ND, start)
        if out_label_N is not None:
            out_label_N[:] = label_N[start:stop]


def _row_keys(
    batch: Batch,
    labels: Labels,
    met: OrderHealth,
    chosen: NDArray[np.int64],
    recipe: FeatureRecipe,
) -> dict[str, NDArray[Any]]:
    quotes = batch.quotes
    quote_index = batch.orders.quote_index[chosen]
    as_of_ns = quotes.ts_event[quote_index]
    return {
        "order_id": batch.order_id[chosen],
        "quote_index": quote_index,
        "as_of_ns": as_of_ns,
        "start_ns": recipe.start_ns(as_of_ns),
        "exit_ns": labels.exit_ns_N[chosen],
        "exit_reason": exit_reasons(labels)[chosen],
        "pnl": labels.pnl_N[chosen],
        "label": labels.label_N[chosen],
        **{name: column[chosen] for name, column in _health_columns(met).items()},
    }


def _write_row_keys(path: Path, rows: Mapping[str, NDArray[Any]], part_N: NDArray[np.int8]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({**rows, "split": _part_names(part_N)})
    pq.write_table(table, path, compression="zstd", row_group_size=ROWS_PER_GROUP)


def _part_names(part_N: NDArray[np.int8]) -> NDArray[np.object_]:
    return np.array([Part(p).name.lower() for p in part_N], object)


def _facts(
    batch: Batch,
    labels: Labels,
    rows: Mapping[str, NDArray[Any]],
    part_N: NDArray[np.int8],
    recipe: FeatureRecipe,
) -> dict[str, Any]:
    splits = {}
    for part, name in enumerate(SPLITS):
        of = part_N == part
        splits[name] = {
            "rows": int(of.sum()),
            "label_rate": float(rows["label"][of].mean()),
            "mean_pnl": float(rows["pnl"][of].mean()),
            "from_ns": int(rows["as_of_ns"][of][0]),
            "to_ns": int(rows["as_of_ns"][of][-1]),
        }
    return {
        "n_orders": len(batch),
        "feature_dim": recipe.feature_dim,
        "schema_hash": schema(recipe)["hash"],
        "splits": splits,
        "label_rate": float(labels.label_N[labels.is_labelled].mean()),
        "median_spread": float(np.median(batch.quotes.spread[batch.orders.quote_index])),
        "median_take_profit": float(np.median(batch.orders.take_profit)),
        "median_stop_loss": float(np.median(batch.orders.stop_loss)),
    }


def _record(dataset: Artifact, batch: Artifact, ledger: Ledger) -> None:
    facts = dict(dataset.metrics)
    rows = {name: facts["splits"][name]["rows"] for name in SPLITS}
    ledger.record(
        tables.Dataset(
            id=dataset.id,
            batch_id=batch.id,
            n_train=rows["train"],
            n_validation=rows["validation"],
            n_test=rows["test"],
            feature_dim=facts["feature_dim"],
            facts=facts,
            path=str(dataset.path),
        )
    )
