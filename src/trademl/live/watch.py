"""A watch over the home region from another one: hedge when it is gone, take back when it is not.

```
there --servers silent, market unreachable, lease ended--> hedged --somebody trades--> there
```

Only a process that trades under the lease takes a hedge back: the position is looked after then. A
health check that succeeds once would cancel it, and the same outage is never hedged twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from trademl.ledger import Ledger
from trademl.ledger.live_tables import BrokerOrder, Hedge
from trademl.live.hedge import (
    Evidence,
    Recovered,
    fire_hedge,
    hedge_of,
    recover,
    take_up,
    was_taken_back,
    why_not,
)
from trademl.live.hedge_size import HedgeConfig
from trademl.live.lease import LeaseHolder, LeaseState, lease_state
from trademl.live.sender import Sender

Standing = Literal["there", "fired", "hedged", "recovered"]
_UNSENT = ("queued", "sending")


@dataclass(frozen=True)
class Prices:
    """Of the instrument and of the ETF, each in its currency."""

    price: float
    spot: float


@dataclass(frozen=True)
class Look:
    """What one look at the region came to.

    Parameters
    ----------
    why : str
        In one line.
    key : str
        Of the hedge's order, where there is one.
    """

    standing: Standing
    why: str
    key: str = ""


class HedgeWatch:
    """Looks at a region, and does what must be done; call `look` again and again.

    Parameters
    ----------
    holder : LeaseHolder
        Of the region that watches.
    sender : Sender
        Of hedges alone, to the broker that takes them.
    is_server_up, is_market_up : callable
        Whether the home region's servers answer, and its market can be reached, now.
    prices : callable
        Returns `Prices` as they are now; asked only when a hedge is to be planned.
    misses : int
        The servers are away after so many looks in a row at which none answered.
    """

    def __init__(
        self,
        ledger: Ledger,
        strategy: str,
        config: HedgeConfig,
        holder: LeaseHolder,
        sender: Sender,
        *,
        is_server_up: Callable[[], bool],
        is_market_up: Callable[[], bool],
        prices: Callable[[], Prices],
        misses: int = 3,
    ) -> None:
        self._ledger, self._strategy, self._config = ledger, strategy, config
        self._holder, self._sender = holder, sender
        self._is_server_up, self._is_market_up = is_server_up, is_market_up
        self._prices, self._most_misses = prices, misses
        self._misses = 0

    def look(self) -> Look:
        """Look once.

        Raises
        ------
        ConfigError, DataError
            If the region is gone and beta, volatility or a price cannot be used: nothing is done.
        StoreError
            If the ledger cannot be reached.
        """
        evidence = self._evidence()
        why = why_not(evidence, self._config.home)
        state = evidence.lease
        if state is not None and state.left_ms > 0 and state.token == state.home_token:
            return self._looked_after(state, why)
        if why and 0 < self._misses < self._most_misses and evidence.is_server_up:
            why = f"no server of region {self._config.home} answered, {self._misses} looks in a row"
        if why:
            return self._wait(why, state)
        return self._gone(evidence)

    def _evidence(self) -> Evidence:
        """Return what is seen; the lease counts as ended where this region holds it itself."""
        state = lease_state(self._ledger, self._holder.name)
        fence = self._holder.fence
        if state is not None and fence is not None and state.token == fence.token:
            state = replace(state, left_ms=0)
        self._misses = 0 if self._is_server_up() else self._misses + 1
        is_up = self._misses < self._most_misses
        return Evidence(state, is_up, is_up or self._is_market_up())

    def _looked_after(self, state: LeaseState, why: str) -> Look:
        standing = self._ledger.rows(Hedge, lease=state.name, recovered_at_ns=None)
        if not standing:
            self._sender.work()  # what was cancelled while the broker was away
            return Look("there", why)
        found = recover(self._ledger, state.name)
        self._sender.work()
        return Look("recovered", _in_words(state.region, found), standing[-1].report["key"])

    def _wait(self, why: str, state: LeaseState | None) -> Look:
        self._holder.release()  # an order that waits goes out only if the region is gone again
        hedge = hedge_of(self._ledger, state)
        if hedge is not None:
            return Look("hedged", why, hedge.report["key"])
        self._sender.work()  # what unwinds a hedge
        return Look("there", why)

    def _gone(self, evidence: Evidence) -> Look:
        if was_taken_back(self._ledger, evidence.lease):
            self._sender.work()
            return Look("hedged", "this outage was hedged, and the hedge taken back by hand")
        if (hedge := hedge_of(self._ledger, evidence.lease)) is None:
            prices = self._prices()
            fired = fire_hedge(
                self._ledger,
                self._holder,
                self._strategy,
                self._config,
                evidence,
                price=prices.price,
                spot=prices.spot,
            )
            look = Look("fired" if fired.is_fired else "there", fired.why, fired.key)
        else:
            take_up(self._ledger, self._holder)
            key = hedge.report["key"]
            look = Look("hedged", f"region {self._config.home} is gone, and hedged", key)
        unreachable = self._sender.work().unreachable
        if unreachable and look.standing != "there":
            look = replace(look, why=f"{look.why}; not sent yet: {unreachable}")
        self._keep_or_release(look.key)
        return look

    def _keep_or_release(self, key: str) -> None:
        """Hold the lease only until the order is out, so that the home region may come back."""
        order = self._ledger.get(BrokerOrder, key) if key else None
        if order is not None and order.status in _UNSENT:
            self._holder.renew()
        else:
            self._holder.release()


def _in_words(region: str, found: Recovered) -> str:
    words = [f"region {region} trades again"]
    if found.cancelled:
        words.append(f"cancelled {', '.join(found.cancelled)}")
    words += [f"unwind {n:g} {name}" for name, n in sorted(found.to_unwind.items())]
    words += ["sell them with: trademl serve hedge --unwind"] if found.to_unwind else []
    return "; ".join(words)
