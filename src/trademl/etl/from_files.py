"""A labelled dataset straight from two files, into a folder of its own: no workspace needed."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trademl.errors import DataError, StoreError
from trademl.etl.build import Engine, write_dataset
from trademl.etl.labels import Labelling, LabelSource
from trademl.etl.recipe import FeatureRecipe
from trademl.etl.splits import SplitConfig
from trademl.ingest.batch import OrderStream, open_batch_files
from trademl.ingest.csv_columns import has_header
from trademl.ingest.imported import imported_batch_id
from trademl.ingest.original_files import open_original_files
from trademl.market.costs import Costs
from trademl.market.health import HealthConfig, flag_delays
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, create_at, get_artifact, read_artifact
from trademl.store.identity import artifact_id, digest_file


def build_features_from_files(
    prices: Path,
    transactions: Path,
    out: Path,
    recipe: FeatureRecipe,
    split: SplitConfig,
    costs: Costs,
    *,
    labels: LabelSource | None = None,
    health: HealthConfig = HealthConfig(),  # noqa: B008 - frozen
    time_limit_s: float = 600.0,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Build a dataset from files of prices and of transactions.

    Parameters
    ----------
    prices, transactions : Path
        The two files of an export batch, or the original demo's header-less ``price-*.csv`` and
        ``deals-*.csv``.
    out : Path
        Folder of the dataset: complete or absent. If it holds this very dataset, nothing is done.
    labels : str, optional
        ``recorded`` or ``recomputed``; by default the original's labels, which ignore the spread,
        are made again, and those of an export batch are kept.
    health : HealthConfig
        What counts as a bad stretch of prices, and what becomes of orders that touch one.
    time_limit_s : float
        Longest life of an order of the original's files, which name none.
    engine : Engine, optional
        Who makes the rows: this process by default.

    Raises
    ------
    DataError
        If a file cannot be used (names file and line), or too few rows are left to split.
    StoreError
        If ``out`` holds anything else.
    """
    is_original = _are_original(prices, transactions)
    source: LabelSource = labels or ("recomputed" if is_original else "recorded")
    labelling = Labelling(source, costs)
    inputs = {"prices": digest_file(prices), "transactions": digest_file(transactions)}
    parameters: dict[str, Any] = {
        "features": asdict(recipe),
        "split": asdict(split),
        "labels": asdict(labelling),
        "health": asdict(health),
        "time_limit_s": time_limit_s if is_original else None,
        "inputs": inputs,
        **(engine.parameters if engine else {}),
    }
    identity = artifact_id("dataset", inputs, parameters)
    if (kept := read_artifact(out)) is not None:
        if kept.id != identity:
            raise StoreError(
                f"{out} holds {kept.id}, made from other files, settings or code: choose another "
                "folder, or delete it"
            )
        return kept
    orders: OrderStream
    if is_original:
        found = open_original_files(prices, transactions, time_limit_s=time_limit_s)
        orders = replace(found, quotes=flag_delays(found.quotes, health.max_delay_s))
    else:
        orders = open_batch_files(prices, transactions)
    batch_id = imported_batch_id(
        inputs,
        time_limit_s=parameters["time_limit_s"],
        max_delay_s=health.max_delay_s,
    )
    sources = {"prices": str(prices.resolve()), "transactions": str(transactions.resolve())}
    with create_at(out, identity, parents=[batch_id], parameters=parameters) as draft:
        draft.metrics["sources"] = sources
        draft.metrics.update(
            write_dataset(
                draft.path,
                orders,
                recipe,
                split,
                labelling,
                health,
                progress or Silent(),
                engine=engine,
            )
        )
    return get_artifact(out)


def _are_original(prices: Path, transactions: Path) -> bool:
    headers = [has_header(path) for path in (prices, transactions)]
    if headers[0] != headers[1]:
        with_header, without = (prices, transactions) if headers[0] else (transactions, prices)
        raise DataError(
            f"{with_header} begins with a header and {without} does not: expected two files of "
            "one kind, both with a header or both without"
        )
    return not headers[0]
