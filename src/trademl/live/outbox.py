"""Orders leave by an outbox: kept with the decision in one transaction, then sent, then accounted.

```
queued -> sending -> sent -> filled
   |         |         |
   |         +-> rejected
   |         +---------+-> cancelling -> cancelled | filled
   +-> cancelled
```

A process may be killed between any two steps. What it had queued is still there; what it was
sending is sent again under the same key, which the broker knows; what it had not accounted is asked
for again.

At any time one process alone sends the orders of a strategy: the one that holds its lease, where
there is one.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CursorResult, case, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from trademl.errors import DataError, StoreError
from trademl.ledger import Ledger
from trademl.ledger.clock import DatabaseNowMs
from trademl.ledger.live_tables import BrokerOrder, Lease
from trademl.ports import OrderTicket

_KEY = re.compile(r"[A-Za-z0-9_-]{1,36}")
_SIDES, _KINDS = ("buy", "sell"), ("entry", "exit", "hedge")
_TICKET = ("strategy", "instrument", "side", "kind", "quantity", "limit_price", "created_at_ns")


@dataclass(frozen=True)
class Fence:
    """The right to trade at a moment: an order with a fence goes out only while it stands.

    Parameters
    ----------
    lease : str
        Name of the lease.
    token : int
        What its holder was given; a later holder has a higher one.
    """

    lease: str
    token: int


def order_key(*parts: str | int) -> str:
    """Return the client order key that stands for a decision: the same parts, the same key."""
    text = "\x1f".join(map(str, parts))
    return hashlib.blake2s(text.encode(), digest_size=15).hexdigest()


def queue(
    session: Session, ticket: OrderTicket, *, fence: Fence | None = None, reason: str = ""
) -> bool:
    """Put an order into the outbox, in the transaction of ``session``: that of its decision.

    Returns
    -------
    bool
        Whether it is new; False if this very order is there already.

    Raises
    ------
    DataError
        If no broker could take the order.
    StoreError
        If another order has its key.
    """
    if (row := session.get(BrokerOrder, ticket.key)) is not None:
        _check(ticket)
        for name in _TICKET:
            if getattr(row, name) != getattr(ticket, name):
                raise StoreError(
                    f"order {ticket.key} is in the ledger with {name} {getattr(row, name)!r}, not "
                    f"{getattr(ticket, name)!r}: give the new order a key of its own"
                )
        return False
    insert(session, ticket, fence=fence, reason=reason)
    return True


def insert(
    session: Session, ticket: OrderTicket, *, fence: Fence | None = None, reason: str = ""
) -> None:
    """Put an order into the outbox as `queue` does, where any order of its key is another's.

    Raises
    ------
    DataError
        If no broker could take the order.
    sqlalchemy.exc.IntegrityError
        If an order has its key; the ledger's session makes a ClashError of it.
    """
    _check(ticket)
    session.add(
        BrokerOrder(
            key=ticket.key,
            **{name: getattr(ticket, name) for name in _TICKET},
            status="queued",
            lease=fence.lease if fence else None,
            token=fence.token if fence else None,
            reason=reason,
            payload=dict(ticket.payload),
        )
    )
    session.flush()


def ask_cancel(ledger: Ledger, key: str, reason: str) -> str:
    """Ask that nothing more of an order fills, and return its status then.

    An order that was not sent is ``cancelled`` at once; one that was, or may have been, is
    ``cancelling`` until the sender has told the broker. Any other is left as it is.

    Raises
    ------
    StoreError
        If there is no such order.
    """
    # in one statement: in between two, another may give a waiting order a new fence, see refence
    ended = case((BrokerOrder.status == "queued", "cancelled"), else_="cancelling")
    with ledger.session() as session:
        step(session, key, ("queued", "sending", "sent"), ended, reason=reason)
        row = session.get(BrokerOrder, key, populate_existing=True)
    if row is None:
        raise StoreError(f"no order {key} in the ledger: it cannot be cancelled")
    return row.status


def claim(session: Session, key: str, *, spare_ms: int = 0) -> bool:
    """Mark an order as being sent, if it may be: it is new or was being sent, and its fence stands.

    Parameters
    ----------
    spare_ms : int
        How long its lease must still last, so that the sending ends before the lease does.
    """
    return step(
        session,
        key,
        ("queued", "sending"),
        "sending",
        where=or_(BrokerOrder.lease.is_(None), fence_stands(spare_ms)),
    )


def fence_stands(spare_ms: int = 0) -> ColumnElement[bool]:
    """Return the condition that an order's fence stands, and goes on to for ``spare_ms``."""
    return (
        select(Lease.name)
        .where(
            Lease.name == BrokerOrder.lease,
            Lease.token == BrokerOrder.token,
            Lease.expires_at_ms > DatabaseNowMs() + spare_ms,
        )
        .correlate(BrokerOrder)
        .exists()
    )


def hold(session: Session, fence: Fence) -> bool:
    """Return whether a fence stands; if so, it does until the transaction of ``session`` ends.

    It writes the lease's row as it is, so that whoever would take the lease waits for the end.
    """
    statement = update(Lease).where(
        Lease.name == fence.lease,
        Lease.token == fence.token,
        Lease.expires_at_ms > DatabaseNowMs(),
    )
    done = session.execute(
        statement.values(token=Lease.token), execution_options={"synchronize_session": False}
    )
    assert isinstance(done, CursorResult)  # noqa: S101  (it is, for an UPDATE)
    return done.rowcount == 1


def refence(session: Session, key: str, fence: Fence, **values: Any) -> bool:
    """Give an order that has not gone out a new fence; return whether it was still waiting."""
    waiting = ("queued", "sending")
    return step(session, key, waiting, "queued", lease=fence.lease, token=fence.token, **values)


def step(
    session: Session,
    key: str,
    before: tuple[str, ...],
    after: str | ColumnElement[str],
    *,
    where: ColumnElement[bool] | None = None,
    **values: Any,
) -> bool:
    """Take an order from a status of ``before`` to ``after``; return whether it had one of them."""
    statement = update(BrokerOrder).where(BrokerOrder.key == key, BrokerOrder.status.in_(before))
    if where is not None:
        statement = statement.where(where)
    done = session.execute(
        statement.values(status=after, **values), execution_options={"synchronize_session": False}
    )
    assert isinstance(done, CursorResult)  # noqa: S101  (it is, for an UPDATE)
    return done.rowcount == 1


def ticket_of(row: BrokerOrder) -> OrderTicket:
    """Return an order of the ledger as a broker gets it."""
    return OrderTicket(
        key=row.key,
        strategy=row.strategy,
        instrument=row.instrument,
        side="buy" if row.side == "buy" else "sell",
        kind="entry" if row.kind == "entry" else "exit" if row.kind == "exit" else "hedge",
        quantity=row.quantity,
        limit_price=row.limit_price,
        created_at_ns=row.created_at_ns,
        payload=row.payload,
    )


def _check(ticket: OrderTicket) -> None:
    name = f"order {ticket.key!r}"
    if not _KEY.fullmatch(ticket.key):
        raise DataError(f"{name}: expected a key of 1 to 36 letters, digits, - and _")
    if ticket.side not in _SIDES or ticket.kind not in _KINDS:
        raise DataError(
            f"{name} is a {ticket.side!r} of kind {ticket.kind!r}: expected buy or sell, and "
            "entry, exit or hedge"
        )
    if not (math.isfinite(ticket.quantity) and ticket.quantity > 0):
        raise DataError(f"{name} has quantity {ticket.quantity}: expected a number above 0")
    if ticket.limit_price is not None and not math.isfinite(ticket.limit_price):
        raise DataError(f"{name} has limit price {ticket.limit_price}: expected a number, or none")
    for field in ("strategy", "instrument"):
        if not 0 < len(getattr(ticket, field)) <= 80:
            raise DataError(f"{name} names no {field} of 1 to 80 characters")
