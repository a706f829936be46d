"""What a live run traded and decided, as compare reads it: from its orders, fills and decisions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select

from trademl.backtest.trade_rows import SIDES, TradeRow
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerFilled, BrokerOrder, LiveDecision


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of one decision of a live run; ``latency_ms`` is of its answer."""

    outcome: str
    tier: str
    latency_ms: float


@dataclass(frozen=True, slots=True)
class LiveHistory:
    """What a live run did.

    Parameters
    ----------
    trades : list of TradeRow
        Round trips that ended, in order of their entries.
    decided : mapping
        Its decisions by the time of their quote, UTC nanoseconds.
    """

    trades: list[TradeRow]
    decided: Mapping[int, Decided]


def live_rows(ledger: Ledger, run_id: str, *, multiplier: float = 1.0) -> LiveHistory:
    """Return the round trips of a live run with the tier and the latency of their answers.

    Parameters
    ----------
    multiplier : float
        What a point of price is worth per unit, where the run's orders do not say.
    """
    statement = (
        select(LiveDecision, BrokerOrder)
        .outerjoin(BrokerOrder, BrokerOrder.key == LiveDecision.order_key)
        .where(LiveDecision.run_id == run_id)
        .order_by(LiveDecision.quote_index)
    )
    with ledger.session() as session:
        made = [(row[0], row[1]) for row in session.execute(statement)]
        ordered = [(said, entry) for said, entry in made if entry is not None]
        exit_of = {entry.key: str(entry.payload.get("exit_key", "")) for _, entry in ordered}
        of_order = _fills(ledger, [*exit_of, *exit_of.values()])
        why = {
            row.key: row.reason
            for row in session.scalars(select(BrokerOrder).where(BrokerOrder.kind == "exit"))
        }
    trades: list[TradeRow] = []
    for said, entry in ordered:
        leaving = exit_of[entry.key]
        entered, left = of_order.get(entry.key, []), of_order.get(leaving, [])
        if _units(left) and np.isclose(_units(left), _units(entered)):
            point = float(entry.payload.get("multiplier", multiplier))
            trades.append(
                _trade(len(trades), said, entry.side, entered, left, why.get(leaving, ""), point)
            )
    decided = {
        said.as_of_ns: Decided(said.outcome, said.tier, said.latency_us / 1_000) for said, _ in made
    }
    return LiveHistory(sorted(trades, key=lambda row: row.opened_at_ns), decided)


def _fills(ledger: Ledger, keys: Sequence[str]) -> Mapping[str, list[BrokerFilled]]:
    wanted, found = set(keys), defaultdict(list)
    for row in ledger.rows(BrokerFilled):
        if row.order_key in wanted:
            found[row.order_key].append(row)
    return found


def _units(fills: Sequence[BrokerFilled]) -> float:
    return sum(fill.quantity for fill in fills)


def _price(fills: Sequence[BrokerFilled]) -> float:
    return sum(fill.quantity * fill.price for fill in fills) / _units(fills)


def _trade(
    number: int,
    said: LiveDecision,
    word: str,
    entered: Sequence[BrokerFilled],
    left: Sequence[BrokerFilled],
    why: str,
    multiplier: float,
) -> TradeRow:
    side, size = SIDES[word], _units(entered)
    paid, got = _price(entered), _price(left)
    return TradeRow(
        number=number,
        order_id=None,
        side=side,
        decided_at_ns=said.as_of_ns,
        opened_at_ns=entered[0].ts_event_ns,
        entry_price=paid,
        closed_at_ns=left[-1].ts_event_ns,
        exit_price=got,
        exit_reason=why,
        size=size,
        gross=(got - paid) * side * size * multiplier,
        fees=sum(fill.fees for fill in (*entered, *left)),
        carry=0.0,
        tier=said.tier or None,
        latency_ms=said.latency_us / 1_000,
    )
