"""An allocation's fills as round trips: what was bought first is sold first.

Shape letters: F fills, A assets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trademl.backtest.allocation import Allocation, Weights
from trademl.backtest.panel import Panel
from trademl.market.costs import Costs


@dataclass
class _Lot:
    """Units that were opened by one fill and are still held, negative where sold."""

    fill: int
    units: float


def round_trips(
    found: Allocation, prices: Panel, weights: Weights, costs: Costs, symbols: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of the ledger's table ``trades``, in order of closing.

    What is held at the end is closed at its last exit touch, with the reason ``end`` and no fee:
    so the profits add up to that of the account, if holding paid nothing.

    Parameters
    ----------
    prices, weights, costs
        What `trademl.backtest.allocation.run_allocation` made ``found`` of.
    symbols : sequence of str
        Names of the A assets.
    """
    held: list[deque[_Lot]] = [deque() for _ in symbols]
    rows: list[dict[str, Any]] = []
    for f in range(len(found)):
        asset, left = int(found.fill_asset[f]), float(found.units[f])
        lots = held[asset]
        while lots and left * lots[0].units < 0:
            closed = np.sign(lots[0].units) * min(abs(left), abs(lots[0].units))
            fee = float(found.fee[f] * abs(closed / found.units[f]))
            rows.append(
                _trip(found, lots[0].fill, closed, int(found.fill_row[f]), float(found.price[f]),
                      fee, "rebalance", costs)
            )  # fmt: skip
            lots[0].units -= closed
            left += closed
            if lots[0].units == 0:
                lots.popleft()
        if left != 0:
            lots.append(_Lot(f, left))
    rows += _at_the_end(found, held, prices, costs)
    for number, row in enumerate(rows):
        asset, decision = row.pop("asset"), row.pop("decision")
        row |= {
            "number": number,
            "instrument": symbols[asset],
            "order_id": max(decision, 0) * len(symbols) + asset,
            "decided_at_ns": int(weights.ts_ns[decision]) if decision >= 0 else None,
        }
    return rows


def _at_the_end(
    found: Allocation, held: list[deque[_Lot]], prices: Panel, costs: Costs
) -> list[dict[str, Any]]:
    bid, ask = prices.touches(costs)
    rows = []
    for asset, lots in enumerate(held):
        for lot in lots:
            touch_T = bid[asset] if lot.units > 0 else ask[asset]
            last = int(np.flatnonzero(np.isfinite(touch_T))[-1])
            rows.append(
                _trip(found, lot.fill, lot.units, last, float(touch_T[last]), 0.0, "end", costs)
            )
    return rows


def _trip(
    found: Allocation,
    opened: int,
    units: float,
    row: int,
    price: float,
    fee: float,
    reason: str,
    costs: Costs,
) -> dict[str, Any]:
    fees = fee + float(found.fee[opened] * abs(units / found.units[opened]))
    gross = (price - float(found.price[opened])) * units
    return {
        "asset": int(found.fill_asset[opened]),
        "decision": int(found.fill_decision[opened]),
        "side": "buy" if units > 0 else "sell",
        "opened_at_ns": int(found.ts_ns[found.fill_row[opened]]),
        "entry_price": float(found.price[opened]),
        "closed_at_ns": int(found.ts_ns[row]),
        "exit_price": price,
        "exit_reason": reason,
        "fees": fees,
        "pnl": gross * costs.multiplier - fees,
        "score": None,
        "size": abs(float(units)),
        "gross_points": float(gross),
        "carry": 0.0,
        "tier": None,
        "latency_ms": None,
    }
