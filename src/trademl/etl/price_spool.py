"""Quotes on disk in groups, each of which is read by itself, by any process.

Shape letter: G groups of quotes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trademl.market.quotes import Quotes

QUOTES_PER_GROUP = 32_768
_COLUMNS = ("ts_event", "bid", "ask", "mid_open", "high", "low", "flags")
_BAR = ("bar_open", "bar_high", "bar_low")


@dataclass(frozen=True, slots=True)
class PriceSpool:
    """A recording's quotes as a Parquet file in groups.

    Parameters
    ----------
    path : Path
    first_ns_G : ndarray of int64
        Time of each group's first quote.
    quotes_per_group : int
    """

    path: Path
    first_ns_G: NDArray[np.int64]
    quotes_per_group: int

    def read(self, first: int, stop: int) -> Quotes:
        """Return the quotes of groups ``first`` to ``stop`` (exclusive)."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            table = file.read_row_groups(list(range(first, stop)))
        quotes = Quotes(*(table[name].to_numpy() for name in _COLUMNS))
        if _BAR[0] not in table.column_names:
            return quotes
        bar_P3 = np.stack([table[name].to_numpy() for name in _BAR], axis=1)
        return replace(quotes, bar_P3=bar_P3)


def spool_quotes(
    quotes: Quotes, path: Path, *, quotes_per_group: int = QUOTES_PER_GROUP
) -> PriceSpool:
    """Write what features read of a recording's quotes, so that it can be read by stretches."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: getattr(quotes, name) for name in _COLUMNS}
    if quotes.bar_P3 is not None:
        columns |= dict(zip(_BAR, np.ascontiguousarray(quotes.bar_P3.T), strict=True))
    pq.write_table(
        pa.table(columns),
        path,
        compression="none",
        use_dictionary=False,
        row_group_size=quotes_per_group,
    )
    return PriceSpool(path, quotes.ts_event[::quotes_per_group].copy(), quotes_per_group)
