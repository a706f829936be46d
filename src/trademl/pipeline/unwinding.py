"""Unwind what a hedge bought, by hand: cancel what is open, sell what filled, once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from trademl.errors import ConfigError, LeaseError, LockedError
from trademl.ledger.live_tables import BrokerOrder
from trademl.live.hedge import recover
from trademl.live.sender import Sender
from trademl.live.unwind import ENDED, Closing, closings, queue_closings, why_keep
from trademl.pipeline.hedging import MAX_SPOT_AGE_S, hedge_sender, lock_of, read_spot
from trademl.pipeline.strategy import Strategy
from trademl.pipeline.workspace import Workspace
from trademl.serve.routing.settings import check_region_name

_LOOK_S = 0.1


@dataclass(frozen=True)
class UnwindOptions:
    """How hedges are unwound.

    Parameters
    ----------
    region : str
        The one whose broker holds the options.
    spot : str
        Price of the ETF: a number, or a file that holds one and was just written.
    while_out : bool
        Also while the home region is out, so that its position is bare from then on.
    rests : bool
        The paper broker's orders rest, instead of filling at once.
    wait_s : float
        How long to wait for a watch of the region, which then sends the orders.
    """

    region: str
    spot: str
    while_out: bool = False
    rests: bool = False
    wait_s: float = 10.0

    def __post_init__(self) -> None:
        check_region_name(self.region)


def plan_unwinding(
    strategy: Strategy, workspace: Workspace, options: UnwindOptions
) -> dict[str, Any]:
    """Return what `unwind_hedges` would sell, and why it would refuse; nothing is written.

    Raises
    ------
    ConfigError, DataError
        As `unwind_hedges`.
    """
    return _told(strategy, workspace, options, (), _closings(strategy, workspace, options))


def unwind_hedges(
    strategy: Strategy, workspace: Workspace, options: UnwindOptions
) -> dict[str, Any]:
    """Take hedges back: cancel what did not fill and sell what did; again, it changes nothing.

    Orders are sent from here, or by the watch of the region where one runs in this workspace.

    Returns
    -------
    dict
        Orders cancelled, and what became of each hedge that is held; safe for JSON.

    Raises
    ------
    LeaseError
        If the home region is out, unless ``while_out``; nothing is done.
    ConfigError, DataError
        If ``[hedge]`` has no home, its volatility is stale, or the spot cannot be used.
    """
    ledger, name = workspace.ledger, strategy.name
    _closings(strategy, workspace, options)  # what cannot be priced is not cancelled either
    if not options.while_out and (why := why_keep(ledger, name, strategy.hedge.home)):
        raise LeaseError(f"{why}; give --while-out to unwind it all the same")
    cancelled = recover(ledger, name, reason="unwound by hand").cancelled
    with ExitStack() as stack:
        work = _worker(stack, strategy, workspace, options)
        _until(lambda: _have_ended(workspace, cancelled), work, options.wait_s)
        found = _closings(strategy, workspace, options)
        queue_closings(ledger, found)
        keys = [closing.key for closing in found if closing.key]
        _until(lambda: _have_ended(workspace, keys), work, options.wait_s)
    return _told(strategy, workspace, options, cancelled, found)


def _closings(strategy: Strategy, workspace: Workspace, options: UnwindOptions) -> list[Closing]:
    if not strategy.hedge.home:
        raise ConfigError("the strategy file has no [hedge] with a home region: write one")
    spot = read_spot(options.spot, MAX_SPOT_AGE_S)
    return closings(
        workspace.ledger,
        strategy.name,
        options.region,
        strategy.hedge,
        spot=spot,
        now_ns=time.time_ns(),
    )


def _worker(
    stack: ExitStack, strategy: Strategy, workspace: Workspace, options: UnwindOptions
) -> Sender | None:
    """Return a sender, or None where the watch of the region is at work: it alone may send."""
    try:
        stack.enter_context(workspace.lock(lock_of(options.region)))
    except LockedError:
        return None
    return hedge_sender(strategy, workspace, options.region, rests=options.rests)


def _until(is_so: Callable[[], bool], sender: Sender | None, wait_s: float) -> None:
    if sender is not None:
        sender.work()
        return
    until_s = time.monotonic() + wait_s
    while not is_so() and time.monotonic() < until_s:
        time.sleep(_LOOK_S)


def _have_ended(workspace: Workspace, keys: Sequence[str]) -> bool:
    orders = [workspace.ledger.get(BrokerOrder, key) for key in keys]
    return all(order is not None and order.status in ENDED for order in orders)


def _told(
    strategy: Strategy,
    workspace: Workspace,
    options: UnwindOptions,
    cancelled: tuple[str, ...],
    found: list[Closing],
) -> dict[str, Any]:
    return {
        "strategy": strategy.name,
        "region": options.region,
        "why_not": why_keep(workspace.ledger, strategy.name, strategy.hedge.home),
        "cancelled": list(cancelled),
        "held": [_fact(workspace, closing) for closing in found],
    }


def _fact(workspace: Workspace, closing: Closing) -> dict[str, Any]:
    order = workspace.ledger.get(BrokerOrder, closing.key) if closing.key else None
    limit = closing.ticket.limit_price if closing.ticket else None
    return {
        "instrument": closing.instrument,
        "quantity": closing.quantity,
        "hedge": closing.hedge,
        "order": closing.key,
        "limit_price": order.limit_price if order is not None else limit,
        "status": order.status if order is not None else "",
        "why": closing.why,
    }
