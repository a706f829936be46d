"""A backtest as an artifact: a model's scores of a dataset's test rows, traded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.bar_engine import BARS_ENGINE, signals_on_bars
from trademl.backtest.results import ledger_rows
from trademl.backtest.run import DEFAULT, BacktestResult, backtest
from trademl.backtest.settings import NO_LIMIT, BacktestConfig
from trademl.backtest.signals import Signals
from trademl.errors import DataError
from trademl.etl.dataset import load_split
from trademl.ingest.batch import BARS, Batch, read_batch
from trademl.ledger import Ledger, tables
from trademl.ledger.bulk import ParquetRows
from trademl.market.costs import Costs
from trademl.market.fills import settle
from trademl.market.friction import with_volatility
from trademl.market.quotes import Quotes
from trademl.ports import Progress, Silent
from trademl.store.artifacts import Artifact, ArtifactStore, Draft
from trademl.store.identity import artifact_id, digest_bytes
from trademl.train.looks import record_look
from trademl.train.model import load_binary_model
from trademl.train.model_archive import MODEL_FILE
from trademl.train.studies import read_trials

ENGINES = ("compiled", "backtrader")
TRADES, EQUITY = "trades.parquet", "equity.parquet"


def backtest_model(
    model: Artifact,
    costs: Costs,
    store: ArtifactStore,
    ledger: Ledger,
    *,
    score_N: NDArray[np.float64] | None = None,
    deployment_id: str | None = None,
    split: str = "test",
    config: BacktestConfig = DEFAULT,
    seed: int = 7,
    engines: Sequence[str] = ENGINES,
    progress: Progress | None = None,
) -> Artifact:
    """Trade a model's scores over a split in every engine, and publish trades and equity.

    Parameters
    ----------
    score_N : ndarray of float64, shape (N,), optional
        Scores of the split's rows, as they were served; the model is asked directly where left
        out.
    deployment_id : str, optional
        The deployment that gave them.
    config : BacktestConfig
        Capital, sizes, limits and rejected orders.
    seed : int
        Decides what is left to chance.

    Raises
    ------
    ParityError
        If the engines differ in a trade.
    """
    progress = progress or Silent()
    dataset = store.get(model.manifest["parents"][1])
    rows = load_split(dataset, split)
    if split == "test":
        study = store.get(model.manifest["parents"][0])
        cuts = [model.metrics["threshold"]]
        record_look(study, read_trials(study), rows, ledger, cuts=cuts)
    if score_N is None:
        score_N = (
            load_binary_model(model.file(MODEL_FILE)).scores(rows.features_ND).astype(np.float64)
        )
    of_batch = store.get(dataset.manifest["parents"][0])
    is_on_bars = BARS in of_batch.manifest["files"]
    parameters = {
        **settings_of(costs, config),
        "engines": [BARS_ENGINE] if is_on_bars else list(engines),
        "split": split,
        "seed": seed,
    }
    inputs = {"model": model.id, "scores": digest_bytes(score_N.tobytes())}
    identity = artifact_id("backtest", inputs, parameters)
    if (published := store.find(identity)) is None:
        batch = read_batch(of_batch)
        with store.create(identity, parents=[model.id, dataset.id], parameters=parameters) as draft:
            batch = replace(batch, quotes=with_volatility(batch.quotes, costs))
            signals, batch = (
                signals_on_bars(batch, rows.order_id_N, score_N)
                if is_on_bars
                else signals_on(batch, rows.order_id_N, score_N, costs)
            )
            result = backtest(
                batch.quotes,
                signals,
                costs,
                threshold=model.metrics["threshold"],
                engines=engines,
                config=config,
                bars=batch.bars,
                seed=seed,
                progress=progress,
            )
            write_result(draft, result, batch.quotes)
        published = store.get(identity)
    else:
        progress.step("backtest")
        progress.done(f"kept {published.id}")
    record_backtest(published, model, dataset, deployment_id, ledger)
    return published


def settings_of(costs: Costs, config: BacktestConfig) -> dict[str, Any]:
    """Return what a backtest was told, as JSON can hold it; None for no limit."""
    limited = {n: None if v == NO_LIMIT else v for n, v in asdict(config).items()}
    return {"costs": asdict(costs), "backtest": limited}


def signals_on(
    batch: Batch, order_id_N: NDArray[np.int64], score_N: NDArray[np.float64], costs: Costs
) -> tuple[Signals, Batch]:
    """Return orders of a batch as signals, on the part of the recording that they can touch.

    What was recorded does not say how far that is: at another latency an order leaves later.
    """
    if batch.bars is not None:
        raise DataError(
            "the dataset's orders live on bars, whose paths are not known: it takes quotes"
        )
    row_N = np.searchsorted(batch.order_id, order_id_N)
    if (
        len(row_N) == 0
        or not (batch.order_id[np.minimum(row_N, len(batch) - 1)] == order_id_N).all()
    ):
        raise DataError("the dataset's rows are not orders of its batch: build it again")
    orders = batch.orders.take(row_N)
    first = int(orders.quote_index[0])
    exit_index_N = settle(batch.quotes, orders, costs).exit_index
    never_leaves = bool((exit_index_N < 0).any())
    last = len(batch.quotes) if never_leaves else int(exit_index_N.max()) + 1
    done = batch.transactions.take(row_N)
    span = Batch(batch.quotes, orders, done, order_id_N).cut(first, last)
    return Signals(span.orders, order_id_N, score_N), span


def write_result(draft: Draft, result: BacktestResult, quotes: Quotes) -> None:
    """Write trades and equity into an artifact in the making, and give it the metrics."""
    trades, equity = ledger_rows(result, quotes)
    write_rows(draft.path / TRADES, trades, tables.Trade)
    write_rows(draft.path / EQUITY, equity, tables.Equity)
    draft.metrics.update(result.metrics)


def write_rows(path: Path, rows: list[dict[str, object]], table: type[tables.Base]) -> None:
    """Write rows of a ledger's table, without the backtest's id, as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [c.name for c in table.__table__.columns if c.name != "backtest_id"]
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)


def record_backtest(
    published: Artifact,
    model: Artifact,
    dataset: Artifact,
    deployment_id: str | None,
    ledger: Ledger,
) -> None:
    """Write a model's backtest, its trades and its equity into the ledger."""
    row = tables.Backtest(
        model_id=model.id,
        dataset_id=dataset.id,
        deployment_id=deployment_id,
        engines=published.manifest["parameters"]["engines"],
    )
    record_result(published, row, ledger)


def record_result(published: Artifact, row: tables.Backtest, ledger: Ledger) -> None:
    """Write a backtest, its trades and its equity into the ledger, over what stood there."""
    row.id, row.path, row.metrics = published.id, str(published.path), dict(published.metrics)
    ledger.replace(
        row,
        (tables.Trade, "backtest_id", ParquetRows(published.file(TRADES))),
        (tables.Equity, "backtest_id", ParquetRows(published.file(EQUITY))),
    )
