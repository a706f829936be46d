"""Sell the options that an outage bought: one order for each hedge that filled, once.

The key of a closing order follows from the hedge's and from how many were tried before, so that two
who unwind at once write one order. What is on its way is never ordered again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import func, select

from trademl.errors import ClashError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerFilled, BrokerOrder, Hedge
from trademl.live.hedge_size import HedgeConfig, closing_premium
from trademl.live.lease import lease_state
from trademl.live.outbox import insert, order_key
from trademl.live.positions import FLAT
from trademl.ports import OrderTicket

ENDED = ("filled", "cancelled", "rejected")


@dataclass(frozen=True)
class Closing:
    """What is to become of the options that one hedge bought.

    Parameters
    ----------
    hedge : str
        Key of its order.
    quantity : float
        Contracts that are still held.
    key : str
        Of the closing order; empty where there is none.
    why : str
        Why there is none.
    ticket : OrderTicket, optional
        That order, where it is not in the ledger yet.
    """

    hedge: str
    instrument: str
    quantity: float
    key: str = ""
    why: str = ""
    ticket: OrderTicket | None = None


def why_keep(ledger: Ledger, lease: str, home: str) -> str:
    """Return why hedges must be kept; empty where no outage needs them any more."""
    state = lease_state(ledger, lease)
    if state is not None and state.left_ms > 0 and state.token == state.home_token:
        return ""
    if not ledger.rows(Hedge, lease=lease, recovered_at_ns=None):
        return ""
    return f"region {home} is out: nobody trades {lease} under its lease, and the hedge protects it"


def closings(
    ledger: Ledger, strategy: str, region: str, config: HedgeConfig, *, spot: float, now_ns: int
) -> list[Closing]:
    """Return what closes the hedges that a region bought; nothing is written.

    Parameters
    ----------
    spot : float
        Price of the ETF at ``now_ns`` at the latest: orders are limited to the premium by it.

    Raises
    ------
    ConfigError
        If the implied volatility is stale.
    DataError
        If there are options of another ETF than that of ``[hedge]``, or spot is no price.
    """
    orders = {row.key: row for row in ledger.rows(BrokerOrder, strategy=strategy, kind="hedge")}
    found = []
    for hedge in ledger.rows(Hedge, strategy=strategy):
        bought = orders.get(hedge.report["key"])
        if bought is None:
            continue
        sold = [row for row in orders.values() if row.payload.get("closes") == bought.key]
        held = _filled(ledger, bought.key) - sum(_filled(ledger, row.key) for row in sold)
        there = bought.payload.get("region", hedge.region)
        open_keys = [row.key for row in sold if row.status not in ENDED]
        if bought.status not in ENDED:
            found.append(_kept(bought, held, "its hedge is not cancelled yet: do it again"))
        elif held <= FLAT * bought.quantity:
            continue
        elif there != region:
            found.append(_kept(bought, held, f"region {there} bought it: unwind it there"))
        elif open_keys:
            found.append(Closing(bought.key, bought.instrument, held, open_keys[0]))
        else:
            premium = closing_premium(config, bought.instrument, spot=spot, now_ns=now_ns)
            key = order_key("unwind", bought.key, len(sold))
            found.append(_close(key, bought, held, premium, region, now_ns))
    return found


def queue_closings(ledger: Ledger, found: Iterable[Closing]) -> None:
    """Put closing orders into the outbox, but for those that somebody else has put there."""
    for closing in found:
        if closing.ticket is not None:
            _queue(ledger, closing.ticket)


def _queue(ledger: Ledger, ticket: OrderTicket) -> None:
    with suppress(ClashError), ledger.session() as session:  # another was quicker
        insert(session, ticket, reason=f"unwinds hedge {ticket.payload['closes']}")


def _close(
    key: str, bought: BrokerOrder, held: float, premium: float | None, region: str, now_ns: int
) -> Closing:
    if premium is None:
        return _kept(bought, held, "it has expired, or is worth nothing")
    ticket = OrderTicket(
        key=key,
        strategy=bought.strategy,
        instrument=bought.instrument,
        side="sell",
        kind="hedge",
        quantity=held,
        limit_price=premium,
        created_at_ns=now_ns,
        payload={"closes": bought.key, "region": region},
    )
    return Closing(bought.key, bought.instrument, held, key, ticket=ticket)


def _kept(bought: BrokerOrder, held: float, why: str) -> Closing:
    return Closing(bought.key, bought.instrument, held, why=why)


def _filled(ledger: Ledger, key: str) -> float:
    statement = select(func.sum(BrokerFilled.quantity)).filter_by(order_key=key)
    with ledger.session() as session:
        return session.scalar(statement) or 0.0
