"""A backtrader broker whose orders fill on quotes, by the one fill model."""

from __future__ import annotations

from typing import Any

import backtrader as bt

from trademl.backtest.backtrader_engine.feed import QuoteFeed
from trademl.backtest.limits import Limits, is_rejected
from trademl.errors import ConfigError
from trademl.market.carry import NO_CARRY, carried
from trademl.market.costs import Costs
from trademl.market.fills import (
    ROUNDING,
    TIE_TOLERANCE,
    entry_price,
    exit_touch,
    is_limit_reached,
    is_stop_reached,
    later,
    shown,
)
from trademl.market.friction import friction_of, slippage_on, tape_of
from trademl.market.orders import Side

FILLABLE = (bt.Order.Market, bt.Order.Limit, bt.Order.Stop)
UNSUPPORTED = {  # order options, each with the value that asks for nothing
    **dict.fromkeys(("plimit", "valid", "trailamount", "trailpercent", "parent")),
    "transmit": True,
}


class CostsCommission(bt.CommInfoBase):  # type: ignore[misc]
    """The fee of `Costs` as a backtrader commission."""

    params = (("costs", Costs()), ("stocklike", True), ("commtype", bt.CommInfoBase.COMM_FIXED))

    def _getcommission(self, size: float, price: float, pseudoexec: bool) -> float:  # noqa: ARG002
        return abs(size) * float(self.p.costs.fee(price))


class QuoteBroker(bt.BrokerBase):  # type: ignore[misc]
    """A broker that fills market, limit and stop orders on the quotes of `QuoteFeed`.

    Parameters
    ----------
    costs : Costs
        What trading costs, with the spread as the feed has it. With ``take_profit_is_market`` a
        limit order that is reached becomes a market order.
    cash : float
        Cash at the start, in quote currency.
    carry : Carry
        What holding earns.
    limits : Limits
        Of these, the share of orders that the venue rejects.

    Notes
    -----
    One recording. An order fills at most once a quote, with no more than the quote shows; the rest
    goes on, or is cancelled with ``ioc=True``. Of orders joined by ``oco``, one that fills or is
    triggered cancels the others; with ``rest_at_market=True`` the rest of a limit order becomes a
    market order once it was reached, also where that quote showed nothing, and ``clock_ns`` is
    when an order arrives at the latest once it is sent. No order is refused for want of cash. The
    value marks the position at the exit touch of the last executable quote. A filled order says on
    which quote in ``order.info.quote_index``. What fills while a strategy decides is in the order
    it gets back at once, and in its notifications on the next quote. ``fills`` holds every fill:
    quote, units, price.
    """

    params = (("costs", Costs()), ("cash", 0.0), ("carry", NO_CARRY), ("limits", None))

    def init(self) -> None:
        super().init()
        if self.p.costs.spread_scale != 1:
            raise ConfigError("the quote broker trades the spread of its feed: see as_traded")
        self.comminfo[None] = CostsCommission(costs=self.p.costs, mult=self.p.costs.multiplier)
        self.startingcash = self.cash = self.p.cash
        self.fills: list[tuple[int, float, float]] = []
        self._position = bt.Position()
        self._mark = 0.0
        self._resting: list[Any] = []
        self._arrives_at: dict[int, int] = {}
        self._looked_at: dict[int, int] = {}
        self._oco_leader: dict[int, int] = {}
        self._notifications: list[Any] = []
        self._carried_until = -(2**62)
        self._limits = (self.p.limits or Limits()).numbers
        self.has_carry = len(self.p.carry.ts) > 0

    def start(self) -> None:
        """Find the recording; of two, one would be traded at stale quotes between its own."""
        feeds = [data for data in self.cerebro.datas if isinstance(data, QuoteFeed)]
        if len(feeds) != 1:
            raise ConfigError(f"the quote broker trades one QuoteFeed, was given {len(feeds)}")
        self._feed = feeds[0]
        self._tape = tape_of(self._feed.p.quotes, self.p.costs)
        self._friction = friction_of(self.p.costs)
        self._has_book = self._tape.book.size > 0
        super().start()

    def getcash(self) -> float:
        return float(self.cash)

    def getvalue(self, datas: list[Any] | None = None) -> float:
        held = float(self._position.size * self._mark * self.p.costs.multiplier)
        return float(self.cash) + held if datas is None else held

    def getposition(self, data: Any) -> Any:  # noqa: ARG002
        return self._position

    def get_notification(self) -> Any:
        return self._notifications.pop(0) if self._notifications else None

    def orderstatus(self, order: Any) -> int:
        return int(order.status)

    def buy(self, owner: Any, data: Any, size: float, **kwargs: Any) -> Any:
        return self._place(bt.order.BuyOrder, owner, data, size, **kwargs)

    def sell(self, owner: Any, data: Any, size: float, **kwargs: Any) -> Any:
        return self._place(bt.order.SellOrder, owner, data, size, **kwargs)

    def cancel(self, order: Any) -> bool:
        """Cancel a resting order and those joined to it; False if it no longer rests."""
        if order not in self._resting:
            return False
        self._withdraw(order)
        self._cancel_joined(order)
        return True

    def submit(self, order: Any) -> Any:
        """Accept the order, and fill it at once if it is a market order that finds a quote."""
        order.submit(self)
        self._notify(order)
        if self._limits.reject_share and is_rejected(self._limits, self._feed.now_ns + order.ref):
            order.reject(self)
            self._notify(order)
            return order
        order.accept(self)
        self._notify(order)
        self._resting.append(order)
        if order.exectype == bt.Order.Market:
            by_clock = order.info.get("decided_at_ns")
            self._send(order, self._feed.now_ns if by_clock is None else by_clock, by_clock is None)
            if self._feed.flag[0] == 0:
                self._try_fill(order, self._feed.bid[0], self._feed.ask[0])
        return order

    def is_in_flight(self, order: Any) -> bool:
        """Say whether an order was sent to the market and has not filled."""
        return order in self._resting and order.ref in self._arrives_at

    def next(self) -> None:
        """Look at the resting orders on the quote just delivered, in the order of submission."""
        feed = self._feed
        if self.has_carry:
            self._pay_carry(feed.now_ns)
        if feed.flag[0] != 0:
            return
        bid, ask = feed.bid[0], feed.ask[0]
        for order in self._resting.copy():
            if order.alive():
                self._try_fill(order, bid, ask)
        if self._position.size:
            self._mark = exit_touch(self._position.size, bid, ask)

    def _pay_carry(self, now_ns: int) -> None:
        if size := self._position.size:
            paid = carried(self.p.carry, 1 if size > 0 else -1, self._carried_until, now_ns)
            self.cash += abs(size) * paid
        self._carried_until = now_ns

    def _place(
        self,
        order_class: Any,
        owner: Any,
        data: Any,
        size: float,
        price: float | None = None,
        exectype: int | None = None,
        tradeid: int = 0,
        oco: Any = None,
        **rest: Any,
    ) -> Any:
        info = _refuse_unsupported(rest)
        if data is not self._feed:
            raise ConfigError("the quote broker takes orders on its QuoteFeed, not on another data")
        order = order_class(
            owner=owner, data=data, size=size, price=price, exectype=exectype, tradeid=tradeid
        )
        _check_type(order)
        order.addinfo(**info)
        order.addcomminfo(self.getcommissioninfo(data))
        self._oco_leader[order.ref] = order.ref if oco is None else self._oco_leader[oco.ref]
        return self.submit(order)

    def _try_fill(self, order: Any, bid: float, ask: float) -> None:
        """Fill the order if an executable quote does, and mark what is then held."""
        if order.ref not in self._arrives_at and self._is_triggered(order, bid, ask):
            self._send(order, self._feed.now_ns, True)
            self._cancel_joined(order)
        size = self._found(order)
        if size == 0.0 and self._is_touched_in_vain(order, bid, ask):
            self._send(order, self._feed.now_ns, True)
            self._cancel_joined(order)
        elif size > 0 and (price := self._fill_price(order, bid, ask, size)) is not None:
            self._fill(order, price, size)
            self._mark = exit_touch(self._position.size, bid, ask)

    def _is_touched_in_vain(self, order: Any, bid: float, ask: float) -> bool:
        """Say whether a limit is reached on a quote that shows nothing: all of it is the rest."""
        return bool(
            order.info.get("rest_at_market")
            and order.exectype == bt.Order.Limit
            and order.ref not in self._arrives_at
            and self._looked_at.get(order.ref) != self._feed.at
            and self._is_reached(order, bid, ask)
        )

    def _found(self, order: Any) -> float:
        """Return the units that this quote fills of an order: no more than it shows, and once."""
        rest = abs(order.executed.remsize)
        if not self._has_book:
            return float(rest)
        if self._looked_at.get(order.ref) == self._feed.at:
            return 0.0
        return float(min(rest, shown(self._tape.book, _side(order), self._feed.at)))

    def _is_triggered(self, order: Any, bid: float, ask: float) -> bool:
        """Say whether a stop, or a take profit that does not rest, is reached."""
        if order.exectype == bt.Order.Limit:
            return self.p.costs.take_profit_is_market and self._is_reached(order, bid, ask)
        return self._is_reached(order, bid, ask)

    def _is_reached(self, order: Any, bid: float, ask: float) -> bool:
        """Say whether a quote reaches an order, which is seen as the exit it may be."""
        side, price = -_side(order), order.p.price
        slack = TIE_TOLERANCE * (self._position.price or price)
        reached = is_limit_reached if order.exectype == bt.Order.Limit else is_stop_reached
        return bool(reached(side, exit_touch(side, bid, ask), price, slack))

    def _send(self, order: Any, decided_at_ns: int, on_quote: bool) -> None:
        """Let an order travel; what a quote brought about is late by the quote's delay too."""
        by_ns = self._friction.seen_ns if on_quote else self._friction.latency_ns
        arrives_at = later(decided_at_ns, by_ns)
        clock_ns = order.info.get("clock_ns")
        self._arrives_at[order.ref] = arrives_at if clock_ns is None else min(clock_ns, arrives_at)

    def _fill_price(self, order: Any, bid: float, ask: float, size: float) -> float | None:
        """Return what an executable quote pays, or None if it does not fill the order."""
        if (arrives_at := self._arrives_at.get(order.ref)) is not None:
            if self._feed.now_ns < arrives_at:
                return None
            tape, at = self._tape, self._feed.at
            worse = slippage_on(tape.bid, tape.ask, tape.book, self._friction, at, size)
            return float(entry_price(_side(order), bid, ask, worse))
        if order.exectype == bt.Order.Limit and self._is_reached(order, bid, ask):
            return float(order.p.price)
        return None

    def _fill(self, order: Any, price: float, size: float) -> None:
        signed = _side(order) * size
        commission, held_at = order.comminfo, self._position.price
        psize, pprice, opened, closed = self._position.update(signed, price)
        pnl = commission.profitandloss(-closed, held_at, price)
        opened_fee, closed_fee = (commission.getcommission(n, price) for n in (opened, closed))
        self.cash -= signed * price * self.p.costs.multiplier + opened_fee + closed_fee
        self.fills.append((self._feed.at, signed, price))
        self._looked_at[order.ref] = self._feed.at
        order.execute(
            self._feed.datetime[0],
            signed,
            price,
            closed,
            abs(closed) * held_at,
            closed_fee,
            opened,
            abs(opened) * price,
            opened_fee,
            None,
            pnl,
            psize,
            pprice,
        )
        order.addinfo(quote_index=self._feed.at)
        self._after_fill(order)

    def _after_fill(self, order: Any) -> None:
        """Decide what becomes of the rest of an order, and of those joined to it."""
        rest = abs(order.executed.remsize)
        if rest <= ROUNDING * abs(order.size):
            order.completed()
            self._resting.remove(order)
            self._notify(order)
        elif order.info.get("ioc"):
            self._withdraw(order)
        else:
            order.partial()
            self._notify(order)
            if order.info.get("rest_at_market") and order.ref not in self._arrives_at:
                self._send(order, self._feed.now_ns, True)
        self._cancel_joined(order)

    def _withdraw(self, order: Any) -> None:
        self._resting.remove(order)
        order.cancel()
        self._notify(order)

    def _cancel_joined(self, order: Any) -> None:
        leader = self._oco_leader[order.ref]
        joined = [o for o in self._resting if self._oco_leader[o.ref] == leader and o is not order]
        for other in joined:
            self._withdraw(other)

    def _notify(self, order: Any) -> None:
        self._notifications.append(order.clone())


def _side(order: Any) -> int:
    return int(Side.BUY if order.isbuy() else Side.SELL)


def _refuse_unsupported(options: dict[str, Any]) -> dict[str, Any]:
    """Return what is left of an order's options: the notes that its owner put on it."""
    for name, harmless in UNSUPPORTED.items():
        if (asked := options.pop(name, harmless)) is not harmless:
            raise ConfigError(
                f"the quote broker takes no order with {name}={asked}: use Market, Limit and Stop "
                "orders, joined by oco"
            )
    return options


def _check_type(order: Any) -> None:
    if order.exectype not in FILLABLE:
        raise ConfigError(
            f"the quote broker fills Market, Limit and Stop orders, was asked for "
            f"{order.getordername()}"
        )
    if order.exectype != bt.Order.Market and order.p.price is None:
        raise ConfigError(f"a {order.getordername()} order needs a price")
