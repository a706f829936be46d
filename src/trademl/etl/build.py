"""Build a labelled dataset from a batch: features, split, RecordIO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trademl.etl.batch_stream import OrderKeys, PriceSpool, read_order_keys, spool_prices
from trademl.etl.chunks import ROWS, ROWS_PER_GROUP, Chunk, SplitJob, plan_chunks, split_features
from trademl.etl.dataset import SPLITS
from trademl.etl.features import FeatureSource, refuse_sparse, usable_rows
from trademl.etl.recipe import FeatureRecipe, schema
from trademl.etl.recordio import RecordWriter
from trademl.etl.splits import Part, SplitConfig, chronological_split
from trademl.ledger import Ledger, tables
from trademl.market.orders import label_of
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore
from trademl.store.identity import artifact_id


class Engine(Protocol):
    """What makes the rows of a dataset: all engines give the same cells in the same order."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What of the engine shows in a dataset's files; part of its id."""

    def write_splits(self, job: SplitJob, progress: Progress) -> None:
        """Write every split into the dataset's folder."""


class LocalEngine:
    """Chunk after chunk in the calling process: memory does not grow with the data."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Nothing: its files are the plain ones."""
        return {}

    def write_splits(self, job: SplitJob, progress: Progress) -> None:
        """Write one RecordIO file per split."""
        with ExitStack() as files:
            writer = {
                name: files.enter_context(
                    RecordWriter(
                        job.folder / f"{name}.recordio", job.recipe.feature_dim, with_label=True
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
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Join a batch's orders with its prices and publish the labelled dataset.

    Parameters
    ----------
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
    parameters = {"features": asdict(recipe), "split": asdict(split), **engine.parameters}
    identity = artifact_id("dataset", {"batch": batch.id}, parameters)
    if (dataset := store.find(identity)) is None:
        with store.create(identity, parents=[batch.id], parameters=parameters) as draft:
            draft.metrics.update(
                write_dataset(draft.path, batch, recipe, split, progress or Silent(), engine=engine)
            )
        dataset = store.get(identity)
    _record(dataset, batch, ledger)
    return dataset


def write_dataset(
    folder: Path,
    batch: Artifact,
    recipe: FeatureRecipe,
    split: SplitConfig,
    progress: Progress,
    *,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Write a dataset's files into a folder, and return its facts."""
    with TemporaryDirectory(prefix=".prices-", dir=folder) as scratch:
        prices = spool_prices(batch, Path(scratch) / "prices.parquet")
        refuse_sparse(prices.step_s)
        chunks = plan_chunks(prices, recipe.lookback_ns)
        facts, rows_of = _write_rows(folder / ROWS, batch, prices, chunks, recipe, split)
        chosen = [(c, r) for c, r in zip(chunks, rows_of, strict=True) if r.stop > r.start]
        (engine or LocalEngine()).write_splits(SplitJob(folder, prices, recipe, chosen), progress)
    (folder / "schema.json").write_text(json.dumps(schema(recipe), indent=1))
    return facts


def write_split(path: Path, source: FeatureSource, label_N: NDArray[np.float32]) -> None:
    """Write features and labels as RecordIO block by block: the matrix is never held."""
    with RecordWriter(path, source.feature_dim, with_label=True) as writer:
        append_rows(writer, source, label_N)


def append_rows(writer: RecordWriter, source: FeatureSource, label_N: NDArray[np.float32]) -> None:
    """Append features and labels to a file of records, block by block."""
    for start, stop, features_ND, out_label_N in writer.blocks(len(source)):
        source.fill(features_ND, start)
        if out_label_N is not None:
            out_label_N[:] = label_N[start:stop]


def _write_rows(
    path: Path,
    batch: Artifact,
    prices: PriceSpool,
    chunks: list[Chunk],
    recipe: FeatureRecipe,
    split: SplitConfig,
) -> tuple[dict[str, Any], list[slice]]:
    """Decide which orders become rows of which split, and write that down.

    Returns
    -------
    facts : dict
        Of the dataset.
    rows_of : list of slice
        Each chunk's lines of the file.
    """
    orders = read_order_keys(batch, prices)
    as_of_ns, kept_N, median_spread = _examine_orders(orders, prices, chunks, recipe)
    facts = {
        "n_orders": len(orders),
        "feature_dim": recipe.feature_dim,
        "schema_hash": schema(recipe)["hash"],
        "label_rate": float(label_of(orders.pnl).mean()),
        "median_spread": median_spread,
        "median_take_profit": orders.median_take_profit,
        "median_stop_loss": orders.median_stop_loss,
    }
    resolved_N = ~np.isnan(orders.pnl)
    dropped = {
        "no_full_history": int((~kept_N).sum()),
        "censored": int((kept_N & ~resolved_N).sum()),
    }
    rows = _row_keys(orders, as_of_ns, kept_N & resolved_N, recipe)
    del orders, as_of_ns
    part_N = chronological_split(rows["as_of_ns"], rows["start_ns"], rows["exit_ns"], split)
    _write_row_keys(path, rows, part_N)
    dropped["purged"] = int((part_N == Part.PURGED).sum())
    dropped["embargoed"] = int((part_N == Part.EMBARGOED).sum())
    facts |= {"splits": _split_facts(rows, part_N), "dropped": dropped}
    return facts, [chunk.rows(rows["quote_index"], prices) for chunk in chunks]


def _examine_orders(
    orders: OrderKeys, prices: PriceSpool, chunks: list[Chunk], recipe: FeatureRecipe
) -> tuple[NDArray[np.int64], NDArray[np.bool_], float]:
    """Return when each order was decided, whether its features can be made, and a median spread."""
    as_of_ns = np.empty(len(orders), np.int64)
    kept_N = np.empty(len(orders), np.bool_)
    spread_N = np.empty(len(orders))
    for chunk in chunks:
        rows = chunk.rows(orders.quote_index, prices)
        if rows.stop > rows.start:
            quotes, offset = chunk.read(prices)
            index_N = orders.quote_index[rows] - offset
            as_of_ns[rows] = quotes.ts_event[index_N]
            spread_N[rows] = quotes.spread[index_N]
            kept_N[rows] = usable_rows(quotes, index_N, recipe)
    return as_of_ns, kept_N, float(np.median(spread_N, overwrite_input=True))


def _row_keys(
    orders: OrderKeys,
    as_of_ns: NDArray[np.int64],
    is_row_N: NDArray[np.bool_],
    recipe: FeatureRecipe,
) -> dict[str, NDArray[Any]]:
    as_of_ns = as_of_ns[is_row_N]
    pnl = orders.pnl[is_row_N]
    return {
        "order_id": orders.order_id[is_row_N],
        "quote_index": orders.quote_index[is_row_N],
        "as_of_ns": as_of_ns,
        "start_ns": as_of_ns - recipe.lookback_ns,
        "exit_ns": orders.exit_ns[is_row_N],
        "pnl": pnl,
        "label": label_of(pnl),
    }


def _write_row_keys(path: Path, rows: Mapping[str, NDArray[Any]], part_N: NDArray[np.int8]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = np.array([part.name.lower() for part in Part], object)

    def group(start: int) -> Any:
        piece = slice(start, start + ROWS_PER_GROUP)
        keys = {name: column[piece] for name, column in rows.items()}
        return pa.table({**keys, "split": pa.array(names[part_N[piece]], pa.string())})

    with pq.ParquetWriter(path, group(0).schema, compression="zstd") as file:
        for start in range(0, len(part_N), ROWS_PER_GROUP):
            file.write_table(group(start), row_group_size=ROWS_PER_GROUP)


def _split_facts(rows: Mapping[str, NDArray[Any]], part_N: NDArray[np.int8]) -> dict[str, Any]:
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
    return splits


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
