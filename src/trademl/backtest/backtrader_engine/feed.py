"""A recording as a backtrader feed, one bar for each quote."""

from __future__ import annotations

from array import array
from typing import Any

import backtrader as bt
import numpy as np

from trademl.market.quotes import NS_PER_S, Quotes

NS_PER_DAY = 86_400 * NS_PER_S
EPOCH_DAY = 719_163  # 1970-01-01 as backtrader counts days


class QuoteFeed(bt.feed.DataBase):  # type: ignore[misc]
    """A recording as a backtrader feed, one bar per quote.

    Parameters
    ----------
    quotes : Quotes
        The recording.
    first : int
        Index of the first quote fed.

    Notes
    -----
    Lines: ``bid``, ``ask``, ``flag`` (bits of `QuoteFlag`), ``quote_index`` (into the recording).
    """

    lines: Any = ("bid", "ask", "flag", "quote_index")
    params = (("quotes", None), ("first", 0), ("timeframe", bt.TimeFrame.Ticks))

    @property
    def at(self) -> int:
        """Index of the current quote in the recording."""
        return int(self.lines.quote_index[0])

    @property
    def now_ns(self) -> int:
        """Time of the current quote, UTC nanoseconds."""
        return int(self.p.quotes.ts_event[self.at])

    def start(self) -> None:
        super().start()
        fed: Quotes = self.p.quotes.slice(self.p.first, len(self.p.quotes))
        quiet = np.zeros(len(fed))
        self._columns = {
            "datetime": fed.ts_event / NS_PER_DAY + EPOCH_DAY,
            **dict.fromkeys(("open", "high", "low", "close"), fed.mid),
            **dict.fromkeys(("volume", "openinterest"), quiet),
            "bid": fed.bid,
            "ask": fed.ask,
            "flag": fed.flags.astype(float),
            "quote_index": np.arange(self.p.first, len(self.p.quotes), dtype=float),
        }
        self._n_loaded = 0

    def preload(self) -> None:
        """Fill the lines at once: backtrader's own loop takes longer than the trading."""
        if self._filters:
            super().preload()
            return
        for name, values in self._columns.items():
            getattr(self.lines, name).array = array("d", np.ascontiguousarray(values).tobytes())
        self._n_loaded = len(self._columns["bid"])
        self.home()

    def _load(self) -> bool:
        if self._n_loaded == len(self._columns["bid"]):
            return False
        for name, values in self._columns.items():
            getattr(self.lines, name)[0] = values[self._n_loaded]
        self._n_loaded += 1
        return True

    def _tick_nullify(self) -> None:
        """Skip the copy of each line that only resampling needs."""

    def _tick_fill(self, force: bool = False) -> None:
        """Skip the copy of each line that only resampling needs."""
