"""Chunks of time: feature rows made from a stretch of quotes and the history before it.

Shape letter: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trademl.etl.dataset import SPLITS
from trademl.etl.features import FeatureSource, prepare
from trademl.etl.price_spool import PriceSpool
from trademl.etl.recipe import FeatureRecipe
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.market.seconds import second_grid

ROWS = "rows.parquet"
ROWS_PER_GROUP = 1 << 20  # of rows.parquet
ROWS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True)
class Chunk:
    """Groups ``first`` to ``stop`` of the quotes; rows decided in them read from ``read_from``."""

    read_from: int
    first: int
    stop: int

    def read(self, prices: PriceSpool) -> tuple[Quotes, int]:
        """Return the chunk's quotes with their history, and the index of the first of them."""
        offset = self.read_from * prices.quotes_per_group
        return prices.read(self.read_from, self.stop), offset

    def rows(self, quote_index_N: NDArray[np.int64], prices: PriceSpool) -> slice:
        """Return which rows are decided in the chunk, given each row's quote, in order."""
        edges = np.array([self.first, self.stop]) * prices.quotes_per_group
        start, stop = np.searchsorted(quote_index_N, edges)
        return slice(int(start), int(stop))


@dataclass(frozen=True, slots=True)
class SplitJob:
    """What an engine is asked to do: write the splits of a dataset.

    Parameters
    ----------
    folder : Path
        Of the dataset; its ``rows.parquet`` is there.
    prices : PriceSpool
        The quotes.
    recipe : FeatureRecipe
        The columns.
    chunks : list of (Chunk, slice)
        In order of time, each with its lines of ``rows.parquet``; none of them is empty.
    """

    folder: Path
    prices: PriceSpool
    recipe: FeatureRecipe
    chunks: list[tuple[Chunk, slice]]


def plan_chunks(prices: PriceSpool, lookback_ns: int) -> list[Chunk]:
    """Return chunks that cover all quotes, each about as long as its history or longer.

    A chunk's history begins at least one quote before the first second from which a row of it may
    read, so that the row's values are those that the whole recording gives, bit for bit.
    """
    chunks, first, n_groups = [], 0, len(prices.first_ns_G)
    while first < n_groups:
        end_ns = prices.first_ns_G[first] + lookback_ns
        stop = max(int(np.searchsorted(prices.first_ns_G, end_ns)), first + 1)
        oldest_ns = prices.first_ns_G[first] // NS_PER_S * NS_PER_S - lookback_ns
        read_from = max(int(np.searchsorted(prices.first_ns_G, oldest_ns)) - 1, 0)
        chunks.append(Chunk(read_from, first, stop))
        first = stop
    return chunks


def split_features(
    job: SplitJob, chunk: Chunk, rows: slice
) -> Iterator[tuple[str, FeatureSource, NDArray[np.float32]]]:
    """Yield (split, features, labels) of a chunk's rows, in order of time within each split."""
    quotes, offset = chunk.read(job.prices)
    grid = second_grid(quotes)
    for start in range(rows.start, rows.stop, ROWS_AT_ONCE):
        piece = slice(start, min(start + ROWS_AT_ONCE, rows.stop))
        index_N, label_N, split_N = _read_rows(job.folder / ROWS, piece)
        for name in SPLITS:
            chosen = split_N == name
            if chosen.any():
                source = prepare(quotes, index_N[chosen] - offset, job.recipe, grid=grid)
                yield name, source, label_N[chosen]


def _read_rows(
    path: Path, rows: slice
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.object_]]:
    import pyarrow.parquet as pq

    first, last = rows.start // ROWS_PER_GROUP, (rows.stop - 1) // ROWS_PER_GROUP
    with pq.ParquetFile(path) as file:
        table = file.read_row_groups(
            list(range(first, last + 1)), columns=["quote_index", "label", "split"]
        )
    table = table.slice(rows.start - first * ROWS_PER_GROUP, rows.stop - rows.start)
    return table["quote_index"].to_numpy(), table["label"].to_numpy(), table["split"].to_numpy()
