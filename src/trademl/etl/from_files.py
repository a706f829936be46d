"""A labelled dataset straight from two files, into a folder of its own: no workspace needed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from trademl.errors import DataError, StoreError
from trademl.etl.build import Engine, write_dataset
from trademl.etl.labels import Labelling, LabelSource
from trademl.etl.recipe import FeatureRecipe
from trademl.etl.splits import SplitConfig
from trademl.ingest.imported import file_pair
from trademl.market.costs import Costs
from trademl.market.health import HealthConfig
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
    spread: float | None = None,
    timezone: str | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Build a dataset from files of prices and of transactions.

    Parameters
    ----------
    prices, transactions : Path
        The two files of an export batch; the original demo's header-less ``price-*.csv`` and
        ``deals-*.csv``; or OHLC bars and orders on them, as `open_bar_files` reads them.
    out : Path
        Folder of the dataset: complete or absent. If it holds this very dataset, nothing is done.
    labels : str, optional
        ``recorded`` or ``recomputed``; by default the original's labels, which ignore the spread,
        are made again, and those of an export batch are kept. On bars they are always made.
    health : HealthConfig
        What counts as a bad stretch of prices, and what becomes of orders that touch one.
    time_limit_s : float
        Longest life of an order of a file that names none, as the original's.
    spread : float, optional
        Ask minus bid of bars that have one price.
    timezone : str, optional
        Zone of naive times of bars.
    engine : Engine, optional
        Who makes the rows: this process by default.

    Raises
    ------
    DataError
        If a file cannot be used (names file and line), or too few rows are left to split.
    StoreError
        If ``out`` holds anything else.
    """
    pair = file_pair(
        prices,
        transactions,
        time_limit_s=time_limit_s,
        max_delay_s=health.max_delay_s,
        spread=spread,
        timezone=timezone,
    )
    if pair.kind == "bars" and labels == "recorded":
        raise DataError(
            f"{prices} holds bars: nobody recorded what orders earned on them; leave out --labels"
        )
    source: LabelSource = labels or ("recorded" if pair.kind == "batch" else "recomputed")
    labelling = Labelling(source, costs)
    inputs = {"prices": digest_file(prices), "transactions": digest_file(transactions)}
    parameters = {
        "features": asdict(recipe),
        "split": asdict(split),
        "labels": asdict(labelling),
        "health": asdict(health),
        "files": asdict(pair),
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
    orders = pair.open(prices, transactions)
    sources = {"prices": str(prices.resolve()), "transactions": str(transactions.resolve())}
    with create_at(out, identity, parents=[pair.batch_id(inputs)], parameters=parameters) as draft:
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
