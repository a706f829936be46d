"""A silence in the quotes that is too long to trade over: what comes after it is left out."""

from __future__ import annotations

import numpy as np

from trademl.backtest.settings import BacktestConfig
from trademl.market.quotes import NS_PER_S, Quotes

NS_PER_MS = 1_000_000


def before_gap(quotes: Quotes, config: BacktestConfig) -> tuple[Quotes, str | None]:
    """Return the quotes before the first silence above ``max_gap_s``, and what was wrong, if any.

    Notes
    -----
    Causal: a silence ends the recording with the quote before it.
    """
    silent_s = np.diff(quotes.ts_event) / NS_PER_S
    if not (too_long := silent_s > config.max_gap_s).any():
        return quotes, None
    last = int(np.flatnonzero(too_long)[0])
    at = np.datetime64(int(quotes.ts_event[last]) // NS_PER_MS, "ms")
    return quotes.slice(0, last + 1), (
        f"no quote came for {silent_s[last]:.0f} s after {at} UTC, and max_gap_s is "
        f"{config.max_gap_s:g}: fill the gap, or raise backtest.max_gap_s"
    )
