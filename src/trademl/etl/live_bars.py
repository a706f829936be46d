"""The last whole bars of a feed, kept up quote by quote, and an indicator's value on them.

Shape letters: W bars of a window, K outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trademl.etl.indicators import (
    last_outputs,
    longest_silence,
    output_names,
    talib_function,
    window_bars,
)
from trademl.etl.recipe import Indicator
from trademl.market.quotes import NS_PER_S, QuoteTick
from trademl.market.ring import Ring

NOTHING = (float("nan"),) * 4
NEVER = -1e18  # the bar of a value that never came


class LiveBars:
    """What `indicator_values` finds for a row decided on the newest quote, to the last bit.

    TA-Lib is asked anew for each row, about the W bars that a dataset's row is made from and no
    others; a quote itself costs the same whatever W is.
    """

    def __init__(self, indicator: Indicator, max_gap_s: int) -> None:
        self._function = talib_function(indicator)
        self._n_outputs = len(output_names(indicator))
        self._width_ns = indicator.bar_s * NS_PER_S
        self._max_stale = longest_silence(indicator, max_gap_s)
        self._ring = Ring(5, window_bars(indicator) + 1)  # prices, and the bar that they come from
        self._now: int | None = None
        self._prices, self._born, self._is_empty = NOTHING, NEVER, True

    def add(self, tick: QuoteTick) -> None:
        """Take the next quote."""
        bar = tick.ts_event // self._width_ns
        if bar != self._now:
            self._close(bar)
        if tick.flags == 0:
            mid = (tick.bid + tick.ask) / 2
            if self._is_empty:
                self._prices, self._is_empty = (mid,) * 4, False
            opened, high, low, _ = self._prices
            self._prices = (opened, max(high, mid), min(low, mid), mid)
            self._born = bar

    def values(self) -> NDArray[np.float64]:
        """Return the outputs on the bars before the newest quote's, shape (1, K); NaN if too few.

        Notes
        -----
        Causal: reads whole bars that ended at or before the beginning of that quote's second.
        """
        bars = self._ring.window()
        bar = self._now or 0
        age = np.arange(bar - bars.shape[1], bar) - bars[4]
        if not (age <= self._max_stale).all():  # NaN too: fewer bars than the window has
            return np.full((1, self._n_outputs), np.nan)
        return last_outputs(self._function, bars[:4, 1:])[None]

    def _close(self, bar: int) -> None:
        before, self._now = self._now, bar
        if before is None:
            return
        self._ring.push((*self._prices, self._born))
        close = self._prices[3]
        self._prices, self._is_empty = (close,) * 4, True
        if silent := bar - before - 1:
            self._ring.repeat((*self._prices, self._born), silent)
