"""The paper broker: orders between two barriers, filled by the one fill model on live quotes.

It remembers nothing beyond its process. Shown the same quotes and sent the same orders again, it
gives the same fills under the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from trademl.errors import OrderRejectedError
from trademl.market.costs import Costs
from trademl.market.friction import friction_of, tape_of
from trademl.market.open_order import OpenOrder, Part, Stage
from trademl.market.orders import Side
from trademl.market.quotes import QuoteTick
from trademl.ports import BrokerFill, OrderTicket


class PaperBroker:
    """A `Broker` that trades one instrument on paper.

    An entry brings its bracket in ``payload``: ``take_profit``, ``stop_loss``, ``time_limit_ns``
    and ``exit_key``, the order under which its exit is filled. That order is a ticket of its own
    and does nothing by itself.

    Parameters
    ----------
    costs : Costs
        What trading costs; neither volatility nor financing.
    name : str
        Another for each run: fills are numbered from its beginning.
    """

    def __init__(self, costs: Costs, name: str = "paper") -> None:
        self._name, self._costs, self._friction = name, costs, friction_of(costs)
        self._orders: dict[str, OpenOrder | None] = {}  # None for exits
        self._exits: dict[str, str] = {}
        self._working: list[str] = []
        self._fills: list[BrokerFill] = []
        self._tick: QuoteTick | None = None

    @property
    def name(self) -> str:
        return self._name

    def order(self, key: str) -> OpenOrder | None:
        """Return an entry as it stands, None where there is none of that key."""
        return self._orders.get(key)

    def send(self, ticket: OrderTicket) -> None:
        if ticket.key in self._orders:
            return
        if ticket.kind != "entry":
            self._orders[ticket.key] = None
            return
        try:
            bracket = ticket.payload
            order = OpenOrder(
                int(Side.BUY if ticket.side == "buy" else Side.SELL),
                float(bracket["take_profit"]),
                float(bracket["stop_loss"]),
                int(bracket["time_limit_ns"]),
                ticket.quantity,
                decided_ns=ticket.created_at_ns,
                friction=self._friction,
            )
            self._exits[ticket.key] = str(bracket["exit_key"])
        except (KeyError, TypeError, ValueError) as error:
            raise OrderRejectedError(f"order {ticket.key} has no bracket: {error!r}") from error
        self._orders[ticket.key] = order
        self._working.append(ticket.key)
        if self._tick is not None:  # the quote that it was decided on may fill it
            self._show(self._tick)

    def cancel(self, key: str) -> None:
        order = self._orders.setdefault(key, None)
        if order is not None and order.stage is Stage.ENTERING:
            self._working.remove(key)
            self._orders[key] = None

    def on_quote(self, tick: QuoteTick) -> bool:
        """Take the next quote; return whether it filled anything."""
        self._tick = tick
        return bool(self._working) and self._show(tick)

    def fills(self, cursor: str) -> tuple[Sequence[BrokerFill], str]:
        start = int(cursor or "0")
        return self._fills[start:], str(max(start, len(self._fills)))

    def _show(self, tick: QuoteTick) -> bool:
        tape, n_before = tape_of(tick.as_quotes(), self._costs), len(self._fills)
        for key in tuple(self._working):
            order = self._orders[key]
            if order is None:
                continue
            for part in order.on_quote(tape):
                self._fill(key, part)
            if order.stage is Stage.DONE:
                self._working.remove(key)
        return len(self._fills) > n_before

    def _fill(self, key: str, part: Part) -> None:
        key = key if part.is_entry else self._exits[key]
        number = 1 + sum(fill.order_key == key for fill in self._fills)
        fees = part.units * self._costs.fee(part.price)
        self._fills.append(BrokerFill(key, number, part.ts_ns, part.units, part.price, fees))
