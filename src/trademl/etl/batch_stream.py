"""A batch of any size, read in pieces: what is kept of each order, and prices by stretch of time.

Shape letters: N orders, G groups of quotes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.ingest.batch import PRICES, TRANSACTIONS
from trademl.market.quotes import NS_PER_S, Quotes
from trademl.store.artifacts import Artifact

QUOTES_PER_GROUP = 32_768
_READ_BYTES = 4 << 20
_QUOTE_TYPES = {
    "seq": "int64",
    "ts_event": "int64",
    "bid": "float64",
    "ask": "float64",
    "mid_open": "float64",
    "high": "float64",
    "low": "float64",
    "flags": "uint8",
}
_ORDER_TYPES = {
    "id": "int64",
    "decided_seq": "int64",
    "closed_at": "int64",
    "pnl": "float64",
    "take_profit": "float64",
    "stop_loss": "float64",
}


@dataclass(frozen=True, slots=True)
class OrderKeys:
    """What a build keeps of each order of a batch; arrays of shape (N,), in order of decision.

    ``quote_index`` counts from the batch's first quote; ``exit_ns`` (UTC ns) is 0 and ``pnl`` NaN
    where an order is unresolved.
    """

    order_id: NDArray[np.int64]
    quote_index: NDArray[np.int64]
    exit_ns: NDArray[np.int64]
    pnl: NDArray[np.float64]
    median_take_profit: float
    median_stop_loss: float

    def __len__(self) -> int:
        return len(self.order_id)


@dataclass(frozen=True, slots=True)
class PriceSpool:
    """A batch's quotes as a Parquet file in groups, each of which is read by itself.

    Parameters
    ----------
    path : Path
    first_ns_G : ndarray of int64
        Time of each group's first quote.
    first_seq, n_quotes : int
        Sequence number of the first quote, and how many there are.
    step_s : float
        Median time between seconds with a quote; infinite where there is one only.
    quotes_per_group : int
    """

    path: Path
    first_ns_G: NDArray[np.int64]
    first_seq: int
    n_quotes: int
    step_s: float
    quotes_per_group: int

    def read(self, first: int, stop: int) -> Quotes:
        """Return the quotes of groups ``first`` to ``stop`` (exclusive)."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            table = file.read_row_groups(list(range(first, stop)))
        return Quotes(*(table[n].to_numpy() for n in _QUOTE_TYPES if n != "seq"))


def spool_prices(
    batch: Artifact, path: Path, *, quotes_per_group: int = QUOTES_PER_GROUP
) -> PriceSpool:
    """Copy a batch's prices into a file that can be read by stretches, in flat memory.

    Raises
    ------
    DataError
        If the prices are damaged, empty, out of order or not numbered one by one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = batch.file(PRICES)
    first_ns, n_quotes, first_seq, steps = [], 0, 0, Steps()
    schema = pa.schema([(n, _arrow_type(t)) for n, t in _QUOTE_TYPES.items() if n != "seq"])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
        for table in _regrouped(source, _QUOTE_TYPES, quotes_per_group):
            seq, ts_event = table["seq"].to_numpy(), table["ts_event"].to_numpy()
            first_seq = first_seq if n_quotes else int(seq[0])
            if not np.array_equal(seq, first_seq + n_quotes + np.arange(len(seq))):
                raise DataError(f"{source}: seq does not count one by one; export it again")
            steps.add(ts_event, source)
            first_ns.append(ts_event[0])
            n_quotes += len(seq)
            file.write_table(table.drop_columns(["seq"]))
    if not n_quotes:
        raise DataError(f"{source}: holds no prices; export it again")
    return PriceSpool(
        path, np.array(first_ns, np.int64), first_seq, n_quotes, steps.median(), quotes_per_group
    )


def read_order_keys(batch: Artifact, prices: PriceSpool) -> OrderKeys:
    """Read what a build keeps of each order; the rest of the file passes by.

    Raises
    ------
    DataError
        If the file is damaged, or an order points outside the prices or is out of order.
    """
    path = batch.file(TRANSACTIONS)
    pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in _ORDER_TYPES}
    for record_batch in _batches(path, _ORDER_TYPES):
        for name, column in pieces.items():
            column.append(_column(record_batch, name))
    orders = {name: np.concatenate(pieces.pop(name) or [np.empty(0)]) for name in _ORDER_TYPES}
    index_N = orders.pop("decided_seq").astype(np.int64, copy=False) - prices.first_seq
    if len(index_N) and (index_N[0] < 0 or index_N.max() >= prices.n_quotes):
        raise DataError(f"{path}: a decided_seq lies outside {PRICES}; export it again")
    if (index_N[1:] < index_N[:-1]).any():
        raise DataError(f"{path}: orders are not in the order of decided_seq; export it again")
    medians = [_median_of(orders.pop(name)) for name in ("take_profit", "stop_loss")]
    return OrderKeys(orders["id"], index_N, orders["closed_at"], orders["pnl"], *medians)


class Steps:
    """Times between seconds with a quote, counted as a recording passes by."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()
        self._last = np.empty(0, np.int64)

    def add(self, ts_event: NDArray[np.int64], source: Path) -> None:
        """Count the steps of the next quotes.

        Raises
        ------
        DataError
            If time runs backwards; the message names ``source``.
        """
        seconds = np.concatenate((self._last, ts_event // NS_PER_S))
        step_s = np.diff(seconds)
        if (step_s < 0).any() or (np.diff(ts_event) < 0).any():
            raise DataError(f"{source}: ts_event runs backwards; export it again")
        self._last = seconds[-1:]
        values, counts = np.unique(step_s[step_s > 0], return_counts=True)
        self._count.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def median(self) -> float:
        """Return the median step in seconds; infinite where there is none."""
        values = np.array(sorted(self._count), np.int64)
        if not len(values):
            return float("inf")
        until = np.cumsum([self._count[value] for value in values.tolist()])
        middle = [(until[-1] - 1) // 2, until[-1] // 2]
        return float(values[np.searchsorted(until, middle, side="right")].mean())


def _median_of(values: NDArray[np.float64]) -> float:
    return float(np.median(values, overwrite_input=True))


def _column(batch: Any, name: str) -> NDArray[Any]:
    column = batch.column(name)
    if name == "closed_at":
        column = column.fill_null(0)
    if column.null_count and _ORDER_TYPES[name] == "int64":
        raise DataError(f"{TRANSACTIONS}: an order has no {name}; export it again")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _regrouped(path: Path, types: dict[str, str], size: int) -> Iterator[Any]:
    """Yield a CSV file as tables of ``size`` rows, the last one shorter."""
    import pyarrow as pa

    held: list[Any] = []
    n_held = 0
    for batch in _batches(path, types):
        held.append(batch)
        n_held += batch.num_rows
        while n_held >= size:
            table = pa.Table.from_batches(held)
            yield table.slice(0, size).combine_chunks()
            held = table.slice(size).to_batches()
            n_held -= size
    if n_held:
        yield pa.Table.from_batches(held).combine_chunks()


def _batches(path: Path, types: dict[str, str]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.csv as csv

    wanted = csv.ConvertOptions(
        column_types={name: _arrow_type(kind) for name, kind in types.items()},
        include_columns=list(types),
    )
    try:
        with csv.open_csv(
            path, read_options=csv.ReadOptions(block_size=_READ_BYTES), convert_options=wanted
        ) as reader:
            yield from reader
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: cannot be read ({reason}): delete its folder and run again"
        ) from error


def _arrow_type(name: str) -> Any:
    import pyarrow as pa

    return getattr(pa, name)()
