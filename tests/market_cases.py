"""Recordings for tests, made by hand or by chance."""

from __future__ import annotations

import numpy as np

from trademl.market.quotes import NS_PER_S, Quotes, flag_quotes

START_S = 1_700_000_000


def make_quotes(
    bid: list[float] | np.ndarray,
    *,
    ask: list[float] | np.ndarray | None = None,
    spread: float = 0.25,
    seconds: list[float] | np.ndarray | None = None,
) -> Quotes:
    """Return quotes one second apart unless told otherwise; high and low are running."""
    bid = np.asarray(bid, float)
    ask = bid + spread if ask is None else np.asarray(ask, float)
    at = np.arange(len(bid)) if seconds is None else np.asarray(seconds, float)
    ts_event = START_S * NS_PER_S + np.round(at * NS_PER_S).astype(np.int64)
    flags = flag_quotes(bid, ask)
    mid = np.where(flags == 0, (bid + ask) / 2, np.nan)
    return Quotes(
        ts_event,
        bid,
        ask,
        np.full(len(bid), mid[0]),
        np.fmax.accumulate(mid),
        np.fmin.accumulate(mid),
        flags,
    )


def random_walk(n: int, *, seed: int = 0, step: float = 0.25, per_s: float = 1.0) -> Quotes:
    """Return a random walk on a price grid, about ``per_s`` quotes a second."""
    rng = np.random.default_rng(seed)
    bid = 1000 + step * np.cumsum(rng.integers(-1, 2, n))
    return make_quotes(bid, spread=step, seconds=np.cumsum(rng.exponential(1 / per_s, n)))
