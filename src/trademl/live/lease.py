"""A lease: which region alone may trade, by one row of the ledger and the database's clock.

Every change is one UPDATE with its condition, so that of two that come at once one finds the row
changed. A new holder gets a higher token. The database's clock alone says when a lease ends; a
holder may think that it ended earlier, never later: it counts from before it asked, on a clock of
its own that does not stop, and trusts that clock to be no more than 5 % slow. An order is checked
once more, against the row, when it is sent (`trademl.live.outbox.claim`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, case, insert, select, update

from trademl.errors import ClashError, ConfigError
from trademl.ledger import Ledger
from trademl.ledger.clock import DatabaseNowMs
from trademl.ledger.live_tables import Lease
from trademl.live.outbox import Fence

TRUST = 0.95  # of the time that a lease lasts: what a holder's clock may be slow by
DatabaseClock = Callable[[], Any]


@dataclass(frozen=True)
class LeaseState:
    """A lease as the database sees it.

    Parameters
    ----------
    home_token : int
        The last token that whoever trades had, in the home region or in one that took over: it
        tells outages apart.
    left_ms : int
        Until it ends; 0 or less if it has.
    """

    name: str
    home: str
    region: str
    token: int
    home_token: int
    left_ms: int


def own_clock() -> float:
    """Return seconds on a clock that goes on while the machine sleeps, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class LeaseHolder:
    """One process's hold on a lease.

    Parameters
    ----------
    name : str
        What may be traded: a strategy's name.
    home : str
        The region that the lease belongs to; it is set when the lease is first taken.
    region : str
        The region that this process is in.
    holder : str
        Names this process: no other has it, before or after.
    ttl_ms : int
        How long the lease lasts without being renewed; at least 100.
    trades : bool
        Whether it takes the lease to trade, and not only to hedge; the home region always does.
    clock : callable
        Seconds, never going back.
    database_now : callable
        Returns the SQL expression of milliseconds since 1970.
    """

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        *,
        home: str,
        region: str,
        holder: str,
        ttl_ms: int = 5000,
        trades: bool = False,
        clock: Callable[[], float] = own_clock,
        database_now: DatabaseClock = DatabaseNowMs,
    ) -> None:
        if ttl_ms < 100:
            raise ConfigError(f"a lease of {ttl_ms} ms is too short: expected at least 100")
        for what, word in (("lease", name), ("region", region), ("holder", holder)):
            if not 0 < len(word) <= 80:
                raise ConfigError(f"{what} {word!r}: expected 1 to 80 characters")
        self._ledger, self.name, self.home = ledger, name, home
        self.region, self.holder, self.ttl_ms = region, holder, ttl_ms
        self._trades = trades
        self._clock, self._now = clock, database_now
        self._fence: Fence | None = None
        self._ends_s = 0.0

    @property
    def fence(self) -> Fence | None:
        """What orders are fenced with, or None when this process does not hold the lease."""
        return self._fence if self._clock() < self._ends_s else None

    def acquire(self) -> Fence | None:
        """Take the lease if it has ended, or was never had; return None if another has it."""
        asked_s = self._clock()
        if not self._change(Lease.expires_at_ms <= self._now(), self._taken()) and not (
            self._first()
        ):
            return None
        row = self._ledger.get(Lease, self.name)
        if row is None or row.holder != self.holder:
            return None
        return self._keep(Fence(self.name, row.token), asked_s)

    def renew(self) -> Fence | None:
        """Hold it for longer; return None, for good, if it ended or another has it."""
        fence, asked_s = self._fence, self._clock()
        if fence is None:
            return None
        mine = (
            (Lease.holder == self.holder)
            & (Lease.token == fence.token)
            & (Lease.expires_at_ms > self._now())
        )
        if self._change(mine, {"expires_at_ms": self._now() + self.ttl_ms}):
            return self._keep(fence, asked_s)
        self._fence, self._ends_s = None, 0.0
        return None

    def release(self) -> None:
        """Let go of it, so that another may take it at once."""
        fence, self._fence, self._ends_s = self._fence, None, 0.0
        if fence is not None:
            mine = (Lease.holder == self.holder) & (Lease.token == fence.token)
            self._change(mine, {"expires_at_ms": 0})

    def _keep(self, fence: Fence, asked_s: float) -> Fence:
        self._fence, self._ends_s = fence, asked_s + self.ttl_ms / 1000 * TRUST
        return fence

    def _taken(self) -> dict[str, Any]:
        return {
            # MySQL sets columns in order, so what reads the old token comes before the new one
            "home_token": Lease.token + 1
            if self._trades
            else case((Lease.home == self.region, Lease.token + 1), else_=Lease.home_token),
            "token": Lease.token + 1,
            "region": self.region,
            "holder": self.holder,
            "expires_at_ms": self._now() + self.ttl_ms,
        }

    def _first(self) -> bool:
        """Make the row if there is none: only the home region may, whose outages it counts."""
        if self.region != self.home or self._ledger.get(Lease, self.name) is not None:
            return False
        row = insert(Lease).values(
            name=self.name,
            home=self.home,
            region=self.region,
            holder=self.holder,
            token=1,
            home_token=1,
            expires_at_ms=self._now() + self.ttl_ms,
        )
        try:
            with self._ledger.session() as session:
                session.execute(row)
        except ClashError:
            return False  # another was quicker
        return True

    def _change(self, where: ColumnElement[bool], values: dict[str, Any]) -> bool:
        statement = (
            update(Lease)
            .where(Lease.name == self.name, where)
            .ordered_values(*((getattr(Lease, name), value) for name, value in values.items()))
        )
        with self._ledger.session() as session:
            done = session.execute(statement, execution_options={"synchronize_session": False})
        return cast("CursorResult[Any]", done).rowcount == 1


def lease_state(
    ledger: Ledger, name: str, *, database_now: DatabaseClock = DatabaseNowMs
) -> LeaseState | None:
    """Return who has a lease, or had it last; None if nobody ever had."""
    statement = select(Lease, (Lease.expires_at_ms - database_now()).label("left"))
    with ledger.session() as session:
        found = session.execute(statement.where(Lease.name == name)).first()
    if found is None:
        return None
    row, left_ms = found
    return LeaseState(row.name, row.home, row.region, row.token, row.home_token, int(left_ms))
