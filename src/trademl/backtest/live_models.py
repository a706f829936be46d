"""The models that were live at each moment, asked about orders that they cannot have learned from.

Shape letters: N orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.live_history import Live, live_at
from trademl.errors import DataError, StoreError
from trademl.etl.dataset import Split, load_split
from trademl.etl.features import feature_matrix, usable_rows
from trademl.etl.recipe import FeatureRecipe, read_recipe
from trademl.ingest.batch import Batch
from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, get_artifact
from trademl.train.model import BinaryModel, load_binary_model
from trademl.train.model_archive import MODEL_FILE

Scored = tuple[NDArray[np.float64], NDArray[np.float64]]


def cut_of(model: BinaryModel) -> float:
    """Return a model's threshold, as serving compares with it."""
    return float(np.float32(model.threshold))


def live_scores(
    model_id: str,
    given: BinaryModel,
    given_N: NDArray[np.float64],
    spans: Sequence[Live],
    rows: Split,
    batch: Batch,
    ledger: Ledger,
) -> Scored:
    """Return scores and thresholds of the model that was live at each row, shape (N,) each.

    Parameters
    ----------
    model_id, given, given_N
        The model that answers throughout where none of ``spans`` touches the rows.

    Raises
    ------
    StoreError
        If a model that was live is not in the ledger.
    DataError
        If one learned from orders that ended after it is asked.
    """
    which_N = live_at(spans, rows.as_of_N)
    if (which_N < 0).all():
        return given_N, np.full(len(rows), cut_of(given))
    score, cut = np.full(len(rows), np.nan), np.full(len(rows), np.inf)
    for number, span in enumerate(spans):
        own = which_N == number
        if not own.any():
            continue
        if span.model_id == model_id:
            score[own], cut[own] = given_N[own], cut_of(given)
            continue
        loaded, recipe = _load(span.model_id, rows, own, ledger)
        at = batch.orders.quote_index[rows_of(batch, rows)][own]
        can = usable_rows(batch.quotes, at, recipe)
        found = np.full(len(at), np.nan)
        if can.any():
            found[can] = loaded.scores(feature_matrix(batch.quotes, at[can], recipe))
        score[own], cut[own] = found, cut_of(loaded)
    return score, cut


def rows_of(batch: Batch, rows: Split) -> NDArray[np.int64]:
    """Return which order of a batch each row of its dataset is, shape (N,)."""
    row_N = np.searchsorted(batch.order_id, rows.order_id_N)
    if (
        not len(row_N)
        or not (batch.order_id[np.minimum(row_N, len(batch) - 1)] == rows.order_id_N).all()
    ):
        raise DataError("the dataset's rows are not orders of its batch: build it again")
    return row_N


def model_of(model_id: str, ledger: Ledger) -> Artifact:
    """Return a model that the ledger knows; raise StoreError where it does not."""
    if (row := ledger.get(tables.Model, model_id)) is None:
        raise StoreError(f"the ledger has no model {model_id}, which was live")
    return get_artifact(Path(row.path))


def _load(
    model_id: str, rows: Split, own: NDArray[np.bool_], ledger: Ledger
) -> tuple[BinaryModel, FeatureRecipe]:
    artifact, dataset = model_of(model_id, ledger), dataset_of(model_id, ledger)
    refuse_seen(model_id, dataset, rows, own)
    recipe = read_recipe(dataset.file("schema.json"))
    return load_binary_model(artifact.file(MODEL_FILE)), recipe


def dataset_of(model_id: str, ledger: Ledger) -> Artifact:
    """Return the dataset of a model that the ledger knows; raise StoreError where it does not."""
    row = ledger.get(tables.Model, model_id)
    of_row = ledger.get(tables.Dataset, row.dataset_id) if row else None
    if of_row is None:
        raise StoreError(f"the ledger has no model {model_id}, or no dataset of it")
    return get_artifact(Path(of_row.path))


def refuse_seen(
    model_id: str, dataset: Artifact, rows: Split, own: NDArray[np.bool_] | None = None
) -> None:
    """Refuse a model that learned from orders which ended after it is asked for the first time."""
    asked = rows.as_of_N if own is None else rows.as_of_N[own]
    learned_until = max(
        int(load_split(dataset, name).exit_N.max()) for name in ("train", "validation")
    )
    if learned_until >= int(asked.min()):
        raise DataError(
            f"{model_id} learned from orders that ended at {learned_until} ns, after it is asked "
            f"at {int(asked.min())} ns: its answers would know the future"
        )
