"""The outbox's sender: orders out to the broker, cancellations after them, fills back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import func, not_, select
from sqlalchemy.orm import Session

from trademl.errors import BrokerError, OrderRejectedError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerCursor, BrokerFilled, BrokerOrder
from trademl.live.outbox import claim, fence_stands, step, ticket_of
from trademl.ports import Broker, BrokerFill, OrderKind

_log = logging.getLogger(__name__)
_LONGEST_NAME = 80
_WHOLE = 1 - 1e-9  # of the ordered units: what is missing is a rest of rounding


@dataclass(frozen=True)
class Sent:
    """What one pass of the sender did.

    Parameters
    ----------
    sent, rejected, cancelled : tuple of str
        Keys of orders.
    fills : tuple of BrokerFill
        Those that were new to the ledger.
    unreachable : str
        Why the broker could not be talked to; what is left stays for the next pass. Empty if it
        could.
    """

    sent: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    fills: tuple[BrokerFill, ...] = ()
    unreachable: str = ""


@dataclass
class _Pass:
    """A pass of the sender as it goes on: see `Sent`."""

    sent: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    fills: list[BrokerFill] = field(default_factory=list)
    unreachable: str = ""


class Sender:
    """Sends a strategy's orders; one at a time for each strategy.

    Parameters
    ----------
    broker : Broker
    strategy : str
        The only one whose orders it sends.
    kinds : sequence of str
        Of these, only the orders that this broker is for; by default all.
    region : str
        Of orders that are for the broker of one region (``region`` of their payload), only those
        for this one; empty: it makes no difference.
    spare_ms : int
        The longest that the broker may take to take an order: a fenced order is not sent when its
        lease ends sooner.
    now_ns : callable
        Wall clock, UTC ns, for the record only.
    """

    def __init__(
        self,
        ledger: Ledger,
        broker: Broker,
        strategy: str,
        *,
        kinds: Sequence[OrderKind] = ("entry", "exit", "hedge"),
        region: str = "",
        spare_ms: int = 0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._ledger, self._broker, self._strategy = ledger, broker, strategy
        self._kinds, self._region = tuple(kinds), region
        self._spare_ms, self._now_ns = spare_ms, now_ns

    def work(self) -> Sent:
        """Send what is queued, cancel what is to be cancelled, account the fills."""
        done = _Pass()
        try:
            self._send_orders(done)
            self._send_cancels(done)
        except BrokerError as error:
            done.unreachable = str(error)
            _log.warning("broker %s: %s", self._broker.name, error)
        return Sent(
            tuple(done.sent),
            tuple(done.rejected),
            tuple(done.cancelled),
            tuple(done.fills),
            done.unreachable,
        )

    def collect(self) -> list[BrokerFill]:
        """Account what the broker filled of the strategy's orders, once; return what was new.

        Raises
        ------
        BrokerError
            If the broker cannot be reached.
        """
        name = f"{self._broker.name}/{self._strategy}"[-_LONGEST_NAME:]
        cursor = self._ledger.get(BrokerCursor, name)
        fills, position = self._broker.fills(cursor.position if cursor else "")
        with self._ledger.session() as session:
            new = [fill for fill in fills if _account(session, self._strategy, fill)]
            session.merge(BrokerCursor(broker=name, position=position))
        return new

    def _send_orders(self, done: _Pass) -> None:
        for row in self._rows("queued", "sending"):
            with self._ledger.session() as session:
                is_claimed = claim(session, row.key, spare_ms=self._spare_ms)
            if not is_claimed:
                self._give_up(row, done)
                continue
            try:
                self._broker.send(ticket_of(row))
            except OrderRejectedError as error:
                self._step(row.key, ("sending",), "rejected", reason=str(error))
                done.rejected.append(row.key)
                continue
            self._step(row.key, ("sending",), "sent", sent_at_ns=self._now_ns())
            done.sent.append(row.key)

    def _give_up(self, row: BrokerOrder, done: _Pass) -> None:
        """Cancel an order whose fence fell; one that may be out must be cancelled there too."""
        fell = not_(fence_stands())
        reason = f"token {row.token} of lease {row.lease} no longer holds"
        if self._step(row.key, ("queued",), "cancelled", where=fell, reason=reason):
            done.cancelled.append(row.key)
        self._step(row.key, ("sending",), "cancelling", where=fell, reason=reason)

    def _send_cancels(self, done: _Pass) -> None:
        """Have orders cancelled, then account all fills, then call closed what was not filled."""
        rows = self._rows("cancelling")
        for row in rows:
            self._broker.cancel(row.key)
        done.fills += self.collect()
        done.cancelled += [
            row.key for row in rows if self._step(row.key, ("cancelling",), "cancelled")
        ]

    def _step(self, key: str, before: tuple[str, ...], after: str, **more: Any) -> bool:
        with self._ledger.session() as session:
            return step(session, key, before, after, **more)

    def _rows(self, *statuses: str) -> Sequence[BrokerOrder]:
        statement = (
            select(BrokerOrder)
            .where(
                BrokerOrder.strategy == self._strategy,
                BrokerOrder.kind.in_(self._kinds),
                BrokerOrder.status.in_(statuses),
            )
            .order_by(BrokerOrder.created_at_ns, BrokerOrder.key)
        )
        with self._ledger.session() as session:
            rows = session.scalars(statement).all()
        return [row for row in rows if self._is_for(row)]

    def _is_for(self, row: BrokerOrder) -> bool:
        return not self._region or row.payload.get("region", self._region) == self._region


def _account(session: Session, strategy: str, fill: BrokerFill) -> bool:
    """Keep a fill, unless it is kept already; an order that is filled to the last unit is done."""
    order = session.get(BrokerOrder, fill.order_key)
    if order is None or order.strategy != strategy:
        return False
    if session.get(BrokerFilled, (fill.order_key, fill.number)) is not None:
        return False
    session.add(BrokerFilled(**asdict(fill)))
    session.flush()
    filled = select(func.sum(BrokerFilled.quantity)).filter_by(order_key=fill.order_key)
    if (session.scalar(filled) or 0.0) >= order.quantity * _WHOLE:
        order.status = "filled"
    return True
