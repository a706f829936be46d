"""What a strategy holds, computed from its fills and from nothing else."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import select

from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerFilled, BrokerOrder

FLAT = 1e-9  # of the units traded: less than that is a rest of rounding


@dataclass(frozen=True)
class Position:
    """A strategy's holding of one instrument.

    Parameters
    ----------
    quantity : float
        Units bought minus units sold: below 0 for a short position, exactly 0 when it is closed.
    cash : float
        Quote currency received for sales minus paid for purchases, per unit of the contract's
        multiplier, before fees.
    fees : float
        Quote currency paid in fees.
    """

    instrument: str
    quantity: float
    cash: float
    fees: float


def positions(ledger: Ledger, strategy: str) -> dict[str, Position]:
    """Return what a strategy holds or held, by instrument, hedges included."""
    statement = (
        select(BrokerOrder.instrument, BrokerOrder.side, BrokerFilled)
        .join(BrokerFilled, BrokerFilled.order_key == BrokerOrder.key)
        .where(BrokerOrder.strategy == strategy)
        .order_by(BrokerFilled.ts_event_ns, BrokerFilled.order_key, BrokerFilled.number)
    )
    fills: defaultdict[str, list[tuple[float, BrokerFilled]]] = defaultdict(list)
    with ledger.session() as session:
        for instrument, side, fill in session.execute(statement):
            fills[instrument].append((1.0 if side == "buy" else -1.0, fill))
    return {instrument: _position(instrument, found) for instrument, found in fills.items()}


def _position(instrument: str, fills: list[tuple[float, BrokerFilled]]) -> Position:
    quantity = math.fsum(sign * fill.quantity for sign, fill in fills)
    if abs(quantity) <= FLAT * math.fsum(fill.quantity for _, fill in fills):
        quantity = 0.0
    cash = math.fsum(-sign * fill.quantity * fill.price for sign, fill in fills)
    return Position(instrument, quantity, cash, math.fsum(fill.fees for _, fill in fills))
