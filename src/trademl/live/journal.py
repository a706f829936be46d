"""What a live run decided, in the ledger: written in batches, each order with its decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from trademl.errors import ClashError, LeaseError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerOrder, LiveDecision, LiveRun
from trademl.live.outbox import Fence, hold, queue
from trademl.ports import OrderTicket

BATCH = 256


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision; see `trademl.ledger.live_tables.LiveDecision`."""

    quote_index: int
    as_of_ns: int
    outcome: str
    score: float | None = None
    tier: str = ""
    model_id: str = ""
    age_ms: float = 0.0
    latency_us: float = 0.0
    reason: str = ""
    order_key: str | None = None


_COLUMNS = tuple(Decision.__dataclass_fields__)


class Journal:
    """The rows of one live run; those of an earlier process under the same id are taken up.

    Parameters
    ----------
    fence : Fence, optional
        Nothing is written without it standing, and every order carries it: of two regions that
        take turns at a run, one alone writes.

    Raises
    ------
    LeaseError
        Here and from every method that writes, if the fence fell.
    ClashError
        So too, if another process has written the same of this run: two trade it.

    Attributes
    ----------
    ledger : Ledger
    known : dict of int to Decision
        What was decided before, by number of the quote.
    """

    def __init__(self, ledger: Ledger, run: LiveRun, fence: Fence | None = None) -> None:
        self.ledger, self._run_id, self._fence = ledger, run.id, fence
        self._waiting: list[Decision] = []
        with self._session() as session:
            session.merge(run)
        statement = select(*(getattr(LiveDecision, name) for name in _COLUMNS)).filter_by(
            run_id=run.id
        )
        with ledger.session() as session:
            rows = session.execute(statement).all()
        self.known = {decision.quote_index: decision for decision in (Decision(*r) for r in rows)}

    def note(self, decision: Decision, tickets: Sequence[OrderTicket] = ()) -> None:
        """Keep a decision; one that brings orders is in the ledger, with them, when this returns.

        A decision that was kept before is not kept again.
        """
        if decision.quote_index not in self.known:
            self._waiting.append(decision)
        if tickets or len(self._waiting) >= BATCH:
            self.flush(tickets)

    def flush(self, tickets: Sequence[OrderTicket] = (), **run: Any) -> None:
        """Write what waits, and columns of the run, in one transaction."""
        rows = [
            {"run_id": self._run_id} | {name: getattr(decision, name) for name in _COLUMNS}
            for decision in self._waiting
        ]
        if self._waiting:
            last = self._waiting[-1]
            run = {"n_quotes": last.quote_index + 1, "last_ns": last.as_of_ns} | run
        with self._session() as session:
            session.add_all([LiveDecision(**row) for row in rows])
            for ticket in tickets:
                queue(session, ticket, fence=self._fence)
            if run:
                session.execute(update(LiveRun).filter_by(id=self._run_id).values(**run))
        self._waiting = []

    def tell(self, order_key: str, reason: str) -> None:
        """Keep why an order ended."""
        with self._session() as session:
            session.execute(update(BrokerOrder).filter_by(key=order_key).values(reason=reason))

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with self.ledger.session() as session:
                if self._fence is not None and not hold(session, self._fence):
                    raise LeaseError(
                        f"token {self._fence.token} of lease {self._fence.lease} no longer holds: "
                        "another region may trade"
                    )
                yield session
        except ClashError as error:
            raise ClashError(
                f"another process trades run {self._run_id} into this ledger and was quicker: stop "
                "one of the two, or give each its --region NAME, so that they take turns"
            ) from error
