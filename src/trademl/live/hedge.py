"""The hedge of an outage: fired once by a surviving region, taken back on recovery.

An outage has one name: the lease, and the token that the home region had last. The name is the key
of a row, written in one transaction with the order, so that of two survivors one is let through.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from trademl.errors import ClashError
from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerOrder, Hedge
from trademl.live.hedge_size import HedgeConfig, HedgePlan, plan_hedge
from trademl.live.lease import LeaseHolder, LeaseState, lease_state
from trademl.live.outbox import Fence, ask_cancel, order_key, queue, refence
from trademl.live.positions import positions
from trademl.ports import OrderTicket


@dataclass(frozen=True)
class Evidence:
    """What is known of the home region.

    Parameters
    ----------
    lease : LeaseState, optional
        None if it never traded.
    is_server_up, is_market_up : bool
        Whether its servers answer health checks, and whether its market can be reached.
    """

    lease: LeaseState | None
    is_server_up: bool
    is_market_up: bool


@dataclass(frozen=True)
class Fired:
    """What came of an outage.

    Parameters
    ----------
    key : str
        Of the order; empty if there is none.
    why : str
        In one line, what was done, or why nothing was.
    plan : HedgePlan, optional
        None if there was nothing to plan.
    """

    is_fired: bool
    key: str
    why: str
    plan: HedgePlan | None = None


@dataclass(frozen=True)
class Recovered:
    """What became of hedges when the region came back: what is filled is still held."""

    cancelled: tuple[str, ...]
    to_unwind: dict[str, float]


def why_not(evidence: Evidence, home: str) -> str:
    """Return why a region is not to be hedged; empty if it is gone."""
    lease = evidence.lease
    if lease is None:
        return f"region {home} never held the lease: there is no outage"
    if lease.home != home:
        return f"the lease {lease.name} belongs to region {lease.home}, not to {home}"
    if lease.left_ms > 0:
        return f"region {lease.region} holds the lease for {lease.left_ms} ms more"
    if evidence.is_server_up:
        return f"the servers of region {home} answer"
    if evidence.is_market_up:
        return f"the market of region {home} can be reached: trade there instead"
    return ""


def plan_for(
    ledger: Ledger, strategy: str, config: HedgeConfig, *, price: float, spot: float, now_ns: int
) -> HedgePlan | None:
    """Return what an outage now would buy, less what earlier hedges left; see `plan_hedge`."""
    held = positions(ledger, strategy)
    position = held.get(config.instrument)
    quantity = position.quantity if position else 0.0
    plan = plan_hedge(config, quantity, price=price, spot=spot, now_ns=now_ns)
    if plan is None:
        return None
    right = plan.option.right[0].upper()
    kept = sum(
        option.quantity
        for name, option in held.items()
        if name.startswith(f"{config.etf} ") and name.split(" ")[2:3] == [right]
    )
    return replace(plan, contracts=max(0, int(plan.contracts - kept)))


def fire_hedge(
    ledger: Ledger,
    holder: LeaseHolder,
    strategy: str,
    config: HedgeConfig,
    evidence: Evidence,
    *,
    price: float,
    spot: float,
    now_ns: Callable[[], int] = time.time_ns,
) -> Fired:
    """Hedge a region that is gone, once for each outage, by an order in the outbox.

    The surviving region takes the lease first: from then on nothing that the lost one still has in
    its outbox goes out.

    Raises
    ------
    ConfigError, DataError
        As `plan_hedge`; before the lease is taken.
    """
    plan = plan_for(ledger, strategy, config, price=price, spot=spot, now_ns=now_ns())
    if reason := why_not(evidence, config.home):
        return Fired(False, "", reason, plan)
    fence = holder.fence or holder.acquire()
    state = lease_state(ledger, holder.name)
    if fence is None or state is None or state.token != fence.token:
        return Fired(False, "", f"another region has taken the lease {holder.name}", plan)
    # planned again, under the lease: a fill may have come in meanwhile
    plan = plan_for(ledger, strategy, config, price=price, spot=spot, now_ns=now_ns())
    return _fire_once(ledger, holder, strategy, fence, state, plan, now_ns())


def _fire_once(
    ledger: Ledger,
    holder: LeaseHolder,
    strategy: str,
    fence: Fence,
    state: LeaseState,
    plan: HedgePlan | None,
    now_ns: int,
) -> Fired:
    key = order_key("hedge", state.name, state.home_token)
    ticket = _ticket(key, strategy, holder.region, plan, now_ns)
    row = Hedge(
        lease=state.name,
        home_token=state.home_token,
        strategy=strategy,
        region=holder.region,
        fired_at_ns=now_ns,
        recovered_at_ns=None,
        report=report(plan) | {"key": key if ticket else ""},
    )
    try:
        with ledger.session() as session:
            session.add(row)
            session.flush()
            if ticket:
                queue(session, ticket, fence=fence, reason=f"outage of region {state.home}")
    except ClashError:
        return Fired(False, "", "this outage is hedged already", plan)
    if plan is None or ticket is None:
        return Fired(True, "", "nothing to buy: no position, or no contract within it", plan)
    return Fired(True, key, f"buy {plan.contracts} {plan.instrument}", plan)


def hedge_of(ledger: Ledger, state: LeaseState | None) -> Hedge | None:
    """Return the hedge of the outage that a lease's state stands for, unless it was taken back."""
    hedge = None if state is None else ledger.get(Hedge, (state.name, state.home_token))
    return None if hedge is None or hedge.recovered_at_ns is not None else hedge


def was_taken_back(ledger: Ledger, state: LeaseState | None) -> bool:
    """Return whether this outage was hedged, and its hedge taken back by hand."""
    hedge = None if state is None else ledger.get(Hedge, (state.name, state.home_token))
    return hedge is not None and hedge.recovered_at_ns is not None


def take_up(ledger: Ledger, holder: LeaseHolder) -> str:
    """Give the hedge of this outage a new fence where it has not gone out; return its key.

    Whoever fired it may have died before it was sent, and its lease ended with it. Empty where
    nothing waits, or where another region has the lease.
    """
    hedge = hedge_of(ledger, lease_state(ledger, holder.name))
    key = hedge.report["key"] if hedge is not None else ""
    order = ledger.get(BrokerOrder, key) if key else None
    if order is None or order.status not in ("queued", "sending"):
        return ""
    if (fence := holder.fence or holder.acquire()) is None:
        return ""
    with ledger.session() as session:
        payload = {**order.payload, "region": holder.region}
        return key if refence(session, key, fence, payload=payload) else ""


def recover(
    ledger: Ledger,
    lease: str,
    *,
    reason: str = "the region is there again",
    now_ns: Callable[[], int] = time.time_ns,
) -> Recovered:
    """Take back the hedges of a region that is there again; doing it twice changes nothing.

    Orders that did not fill are cancelled (the next pass of the sender tells the broker); what did
    fill is returned, to be unwound.
    """
    cancelled = []
    strategies = set()
    for hedge in ledger.rows(Hedge, lease=lease):
        strategies.add(hedge.strategy)
        if hedge.recovered_at_ns is not None:
            continue
        key = hedge.report["key"]
        if key and ask_cancel(ledger, key, reason).startswith("cancel"):
            cancelled.append(key)
        hedge.recovered_at_ns = now_ns()
        ledger.record(hedge)
    return Recovered(tuple(cancelled), _left(ledger, strategies))


def report(plan: HedgePlan | None) -> dict[str, Any]:
    """Return a plan as a JSON object."""
    if plan is None:
        return {"plan": None}
    return {"plan": asdict(plan) | {"delta": plan.option.delta}}


def _ticket(
    key: str, strategy: str, region: str, plan: HedgePlan | None, now_ns: int
) -> OrderTicket | None:
    if plan is None or plan.contracts < 1:
        return None
    return OrderTicket(
        key=key,
        strategy=strategy,
        instrument=plan.instrument,
        side="buy",
        kind="hedge",
        quantity=float(plan.contracts),
        limit_price=plan.option.price,
        created_at_ns=now_ns,
        payload=report(plan) | {"region": region},
    )


def _left(ledger: Ledger, strategies: set[str]) -> dict[str, float]:
    left: dict[str, float] = {}
    for strategy in strategies:
        names = {
            row.instrument for row in ledger.rows(BrokerOrder, strategy=strategy, kind="hedge")
        }
        held = positions(ledger, strategy)
        left |= {name: held[name].quantity for name in names & set(held) if held[name].quantity}
    return left
