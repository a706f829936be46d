"""What becomes of every order of a batch: its label, the feed around it, why it is no row.

Orders pass by in blocks, and what is found is kept on disk: memory does not hold them all.

Shape letter: N orders.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.etl.column_spool import ColumnSpool
from trademl.etl.features import usable_rows
from trademl.etl.labels import LabelFigures, Labelling, LabelSource, label_batch, label_columns
from trademl.etl.order_health import OrderHealth, order_health
from trademl.etl.recipe import FeatureRecipe
from trademl.etl.splits import Part
from trademl.ingest.batch import Batch, OrderStream
from trademl.market.health import HealthConfig
from trademl.market.quotes import Quotes


class Fate(IntEnum):
    """Where an order went: the `Part` of a row, or why it is none; `ROW` until rows are split."""

    TRAIN = Part.TRAIN
    VALIDATION = Part.VALIDATION
    TEST = Part.TEST
    PURGED = Part.PURGED
    EMBARGOED = Part.EMBARGOED
    NO_FULL_HISTORY = 5
    NO_EXECUTABLE_QUOTE = 6
    UNHEALTHY = 7
    CENSORED = 8
    ROW = 9


class ExaminedOrders:
    """What was found of N orders, read from disk when it is asked for."""

    def __init__(self, spool: ColumnSpool, source: LabelSource, quotes: Quotes) -> None:
        self._spool = spool
        self._source = source
        self._ts_event = quotes.ts_event

    def __len__(self) -> int:
        return len(self._spool)

    @property
    def are_on_bars(self) -> bool:
        """Whether orders were settled on bars, and a column ``is_ambiguous`` says of doubt."""
        return "is_ambiguous" in self._spool

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of all orders, shape (N,)."""
        return self._spool.column(name)

    def rows(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return every column of some orders, and ``as_of_ns``, when each was decided."""
        columns = self._spool.rows(start, stop)
        return columns | {"as_of_ns": self._ts_event[columns["quote_index"]]}

    def as_of_ns(self) -> NDArray[np.int64]:
        """Return when each order was decided, UTC ns, shape (N,)."""
        as_of_ns_N: NDArray[np.int64] = self._ts_event[self.column("quote_index")]
        return as_of_ns_N

    def figures(self) -> LabelFigures:
        """Return what facts are made from: 29 bytes an order."""
        names = ("label", "pnl", "marked_pnl", "exit_reason", "recorded_label", "recomputed_label")
        figures = LabelFigures(self._source, *(self.column(name) for name in names))
        if not self.are_on_bars:
            return figures
        return replace(figures, is_ambiguous_N=self.column("is_ambiguous"))

    def health(self) -> OrderHealth:
        """Return what each order touches."""
        return OrderHealth(self.column("history_health"), self.column("holding_health"))


def examine_orders(
    orders: OrderStream,
    recipe: FeatureRecipe,
    labelling: Labelling,
    health: HealthConfig,
    folder: Path,
) -> tuple[ExaminedOrders, NDArray[np.int8]]:
    """Look at every order, and return what was found and the `Fate` of each.

    Parameters
    ----------
    folder : Path
        An empty folder, which holds what was found for as long as it is used.

    Notes
    -----
    Causal: an order is looked at with quotes up to its exit; see `label_batch`.
    """
    spool, fates = ColumnSpool(folder), []
    for block in orders.blocks():
        columns, fate_N = _examine_block(block, recipe, labelling, health)
        spool.append(columns)
        fates.append(fate_N)
    return ExaminedOrders(spool, labelling.source, orders.quotes), np.concatenate(fates)


def _examine_block(
    batch: Batch, recipe: FeatureRecipe, labelling: Labelling, health: HealthConfig
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int8]]:
    quotes, index_N = batch.quotes, batch.orders.quote_index
    labels = label_batch(batch, labelling)
    met = order_health(batch, labels, recipe.lookback_ns, health)
    dropped = {
        Fate.NO_FULL_HISTORY: ~_usable(quotes, index_N, recipe),
        Fate.NO_EXECUTABLE_QUOTE: ~quotes.is_executable[index_N],
        Fate.UNHEALTHY: met.touches & (health.policy == "drop"),
        Fate.CENSORED: ~labels.is_labelled,
    }
    fate_N = np.select(list(dropped.values()), list(dropped), Fate.ROW).astype(np.int8)
    columns = label_columns(batch, labels) | {
        "quote_index": index_N,
        "spread": quotes.spread[index_N],
        "take_profit": batch.orders.take_profit,
        "stop_loss": batch.orders.stop_loss,
        "history_health": met.history_N,
        "holding_health": met.holding_N,
    }
    return columns, fate_N


def _usable(quotes: Quotes, index_N: NDArray[np.int64], recipe: FeatureRecipe) -> NDArray[np.bool_]:
    """Return `usable_rows` of orders in time, from no more quotes than those that they may read.

    As for a chunk of rows, these begin one quote before the oldest second that any of them reads.
    """
    if not len(index_N):
        return np.empty(0, np.bool_)
    oldest_ns = recipe.start_ns(quotes.ts_event[index_N[:1]])[0]
    first = max(int(np.searchsorted(quotes.ts_event, oldest_ns)) - 1, 0)
    return usable_rows(quotes.slice(first, int(index_N[-1]) + 1), index_N - first, recipe)
