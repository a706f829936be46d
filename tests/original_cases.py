"""Recordings and deals in the original demo's format, made by chance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

START_MS = 1_593_598_800_000


def original_ticks(n: int, *, seed: int = 0, spread: float = 36.0, step: float = 4.0) -> list[dict]:
    """Return one tick a second, somewhere within the second; prices in cents, as the venue's."""
    rng = np.random.default_rng(seed)
    mids = np.round(9000 + np.cumsum(rng.normal(0, step, n)), 2)
    at_ms = START_MS + 1000 * np.arange(n) + rng.integers(0, 1000, n)
    return [
        {
            "timestamp": int(at_ms[k]),
            "BID": round(mids[k] - spread / 2, 2),
            "OFFER": round(mids[k] + spread / 2, 2),
            "MID_OPEN": 8990.5,
            "CHANGE": round(mids[k] - 8990.5, 2),
            "CHANGE_PCT": 0.1,
            "HIGH": round(mids[: k + 1].max(), 2),
            "LOW": round(mids[: k + 1].min(), 2),
            "UPDATE_TIME": "11:03:40",
            "MARKET_STATE": "TRADEABLE",
            "MARKET_DELAY": 0,
        }
        for k in range(n)
    ]


def original_deals(ticks: list[dict], *, barrier: float = 20.0) -> list[dict]:
    """Return one buy a tick, entered and left on OFFER, as the original's dealer did.

    Those that no later tick resolves are left out.
    """
    deals = []
    for k, tick in enumerate(ticks):
        price = tick["OFFER"]
        stop_price, limit_price = price - barrier, price + barrier
        for later in ticks[k + 1 :]:
            if limit_price <= later["OFFER"] or stop_price >= later["OFFER"]:
                outcome = "profit" if limit_price <= later["OFFER"] else "loss"
                deals.append(
                    {
                        "timestamp": tick["timestamp"],
                        "loss_or_profit": outcome,
                        "type": "buy",
                        "stop": barrier,
                        "limit": barrier,
                        "price": price,
                        "stop_price": stop_price,
                        "limit_price": limit_price,
                    }
                )
                break
    return deals


def write_rows(path: Path, rows: list[dict]) -> Path:
    """Write rows without a header, every cell as JSON writes it, strings where the feed has them."""
    path.write_text("".join(",".join(json.dumps(str(c)) for c in r.values()) + "\n" for r in rows))
    return path
