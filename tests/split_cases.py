"""Splits made in memory: one that holds a signal, one that holds none."""

from __future__ import annotations

import numpy as np

from trademl.etl.dataset import Split

MINUTE_NS = 60_000_000_000


def make_split(features, label, pnl=None, *, hold_ns: int = 5 * MINUTE_NS) -> Split:
    """Return orders a minute apart; each wins or loses 1 unless told otherwise."""
    label = np.asarray(label, np.float32)
    at = np.arange(len(label), dtype=np.int64) * MINUTE_NS
    pnl = np.where(label > 0.5, 1.0, -1.0) if pnl is None else np.asarray(pnl, np.float64)
    return Split(
        np.asarray(features, np.float32), label, np.arange(len(label)), at, at + hold_ns, pnl
    )


def draw_split(seed: int, *, n: int = 1200, d: int = 8, signal: float = 1.5) -> Split:
    """Return random features of which the first two drive the label, by ``signal``."""
    rng = np.random.default_rng(seed)
    features = rng.normal(3.0, 2.0, (n, d))
    logit = signal * (features[:, 0] - features[:, 1]) / 2.0
    return make_split(features, rng.random(n) < 1.0 / (1.0 + np.exp(-logit)))
