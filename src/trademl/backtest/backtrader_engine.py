"""The backtrader engine: the same fills for strategies that a user writes, and all its quirks.

This is the only module that imports backtrader. What it fences off:

* backtrader keeps times as fractional days, about 10 us apart, and its own brokers fill a market
  order only on a later *time*. Here a quote is known by its index, and times are read from the
  recording's integers; quotes of equal time keep file order.
* Its brokers fill on bars. `QuoteBroker` fills on quotes, through `trademl.market.fills`.
* On each quote the broker looks at resting orders first and the strategy decides after. A market
  order fills on the quote of its decision if that is executable and there is no latency, else on
  the first that is from its arrival on; limit and stop orders are looked at from the next quote on.
* backtrader calls a strategy on quotes alone. What a strategy decides by the clock it sends on a
  later quote with ``decided_at_ns``, the time at which it was decided.
* ``order.created.price`` replaces a price of 0 by the close; the broker reads ``order.p.price``.
* Indicators see the mid as open, high, low and close; NaN on a one-sided quote.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np

from trademl.backtest.signals import Signals, check_signals
from trademl.backtest.trades import OpenPosition, Trades
from trademl.errors import ConfigError
from trademl.market.costs import Costs
from trademl.market.fills import (
    TIE_TOLERANCE,
    entry_price,
    exit_touch,
    is_limit_reached,
    is_stop_reached,
    later,
)
from trademl.market.orders import ExitReason, Side
from trademl.market.quotes import NS_PER_S, Quotes

NS_PER_DAY = 86_400 * NS_PER_S
EPOCH_DAY = 719_163  # 1970-01-01 as backtrader counts days
FILLABLE = (bt.Order.Market, bt.Order.Limit, bt.Order.Stop)
UNSUPPORTED = {  # order options, each with the value that asks for nothing
    **dict.fromkeys(("plimit", "valid", "trailamount", "trailpercent", "parent")),
    "transmit": True,
}


class QuoteFeed(bt.feed.DataBase):  # type: ignore[misc]
    """A recording as a backtrader feed, one bar per quote.

    Parameters
    ----------
    quotes : Quotes
        The recording.
    first : int
        Index of the first quote fed.

    Notes
    -----
    Lines: ``bid``, ``ask``, ``flag`` (bits of `QuoteFlag`), ``quote_index`` (into the recording).
    """

    lines: Any = ("bid", "ask", "flag", "quote_index")
    params = (("quotes", None), ("first", 0), ("timeframe", bt.TimeFrame.Ticks))

    @property
    def at(self) -> int:
        """Index of the current quote in the recording."""
        return int(self.lines.quote_index[0])

    @property
    def now_ns(self) -> int:
        """Time of the current quote, UTC nanoseconds."""
        return int(self.p.quotes.ts_event[self.at])

    def start(self) -> None:
        super().start()
        fed: Quotes = self.p.quotes.slice(self.p.first, len(self.p.quotes))
        quiet = np.zeros(len(fed))
        self._columns = {
            "datetime": fed.ts_event / NS_PER_DAY + EPOCH_DAY,
            **dict.fromkeys(("open", "high", "low", "close"), fed.mid),
            **dict.fromkeys(("volume", "openinterest"), quiet),
            "bid": fed.bid,
            "ask": fed.ask,
            "flag": fed.flags.astype(float),
            "quote_index": np.arange(self.p.first, len(self.p.quotes), dtype=float),
        }
        self._n_loaded = 0

    def preload(self) -> None:
        """Fill the lines at once: backtrader's own loop takes longer than the trading."""
        if self._filters:
            super().preload()
            return
        for name, values in self._columns.items():
            getattr(self.lines, name).array = array("d", np.ascontiguousarray(values).tobytes())
        self._n_loaded = len(self._columns["bid"])
        self.home()

    def _load(self) -> bool:
        if self._n_loaded == len(self._columns["bid"]):
            return False
        for name, values in self._columns.items():
            getattr(self.lines, name)[0] = values[self._n_loaded]
        self._n_loaded += 1
        return True

    def _tick_nullify(self) -> None:
        """Skip the copy of each line that only resampling needs."""

    def _tick_fill(self, force: bool = False) -> None:
        """Skip the copy of each line that only resampling needs."""


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
        Fee of each fill, slippage and latency of market and stop orders. With
        ``take_profit_is_market`` a limit order that is reached becomes a market order.
    cash : float
        Cash at the start, in quote currency.

    Notes
    -----
    One recording, and orders that fill whole. Of orders joined by ``oco``, one that fills or is
    triggered cancels the others. No order is refused for want of cash. The value marks the position
    at the exit touch of the last executable quote. A filled order says on which quote in
    ``order.info.quote_index``. What fills while a strategy decides is in the order it gets back at
    once, and in its notifications on the next quote.
    """

    params = (("costs", Costs()), ("cash", 0.0))

    def init(self) -> None:
        super().init()
        self.comminfo[None] = CostsCommission(costs=self.p.costs)
        self.startingcash = self.cash = self.p.cash
        self._position = bt.Position()
        self._mark = 0.0
        self._resting: list[Any] = []
        self._arrives_at: dict[int, int] = {}
        self._oco_leader: dict[int, int] = {}
        self._notifications: list[Any] = []

    def start(self) -> None:
        """Find the recording; of two, one would be traded at stale quotes between its own."""
        feeds = [data for data in self.cerebro.datas if isinstance(data, QuoteFeed)]
        if len(feeds) != 1:
            raise ConfigError(f"the quote broker trades one QuoteFeed, was given {len(feeds)}")
        self._feed = feeds[0]
        super().start()

    def getcash(self) -> float:
        return float(self.cash)

    def getvalue(self, datas: list[Any] | None = None) -> float:
        held = float(self._position.size * self._mark)
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
        self._resting.remove(order)
        order.cancel()
        self._notify(order)
        self._cancel_joined(order)
        return True

    def submit(self, order: Any) -> Any:
        """Accept the order, and fill it at once if it is a market order that finds a quote."""
        order.submit(self)
        self._notify(order)
        order.accept(self)
        self._notify(order)
        self._resting.append(order)
        if order.exectype == bt.Order.Market:
            self._send(order, order.info.get("decided_at_ns", self._feed.now_ns))
            if self._feed.flag[0] == 0:
                self._try_fill(order, self._feed.bid[0], self._feed.ask[0])
        return order

    def is_in_flight(self, order: Any) -> bool:
        """Say whether an order was sent to the market and has not filled."""
        return order in self._resting and order.ref in self._arrives_at

    def next(self) -> None:
        """Look at the resting orders on the quote just delivered, in the order of submission."""
        feed = self._feed
        if feed.flag[0] != 0:
            return
        bid, ask = feed.bid[0], feed.ask[0]
        for order in self._resting.copy():
            if order.alive():
                self._try_fill(order, bid, ask)
        if self._position.size:
            self._mark = exit_touch(self._position.size, bid, ask)

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
            self._send(order, self._feed.now_ns)
            self._cancel_joined(order)
        price = self._fill_price(order, bid, ask)
        if price is not None:
            self._fill(order, price)
            self._mark = exit_touch(self._position.size, bid, ask)

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

    def _send(self, order: Any, decided_at_ns: int) -> None:
        self._arrives_at[order.ref] = later(decided_at_ns, self.p.costs.latency_ns)

    def _fill_price(self, order: Any, bid: float, ask: float) -> float | None:
        """Return what an executable quote pays, or None if it does not fill the order."""
        if (arrives_at := self._arrives_at.get(order.ref)) is not None:
            has_arrived = self._feed.now_ns >= arrives_at
            price = entry_price(_side(order), bid, ask, self.p.costs.slippage)
            return float(price) if has_arrived else None
        if order.exectype == bt.Order.Limit and self._is_reached(order, bid, ask):
            return float(order.p.price)
        return None

    def _fill(self, order: Any, price: float) -> None:
        self._resting.remove(order)
        commission, size, held_at = order.comminfo, order.executed.remsize, self._position.price
        psize, pprice, opened, closed = self._position.update(size, price)
        pnl = commission.profitandloss(-closed, held_at, price)
        opened_fee, closed_fee = (commission.getcommission(n, price) for n in (opened, closed))
        self.cash -= size * price + opened_fee + closed_fee
        order.execute(
            self._feed.datetime[0],
            size,
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
        self._notify(order)
        self._cancel_joined(order)

    def _cancel_joined(self, order: Any) -> None:
        leader = self._oco_leader[order.ref]
        joined = [o for o in self._resting if self._oco_leader[o.ref] == leader and o is not order]
        for other in joined:
            self._resting.remove(other)
            other.cancel()
            self._notify(other)

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


@dataclass(slots=True)
class _Bracket:
    """One signal on its way: an entry, then a position between its two resting exits."""

    row: int
    entry: Any
    take_profit: Any = None
    stop_loss: Any = None
    expires_at: int = 0

    @property
    def has_position(self) -> bool:
        return self.take_profit is not None


@dataclass(frozen=True, slots=True)
class _RoundTrip:
    row: int
    entry: Any
    exit: Any
    reason: ExitReason


class BarrierStrategy(bt.Strategy):  # type: ignore[misc]
    """Take signals one at a time, each between a take profit, a stop and a time limit.

    Parameters
    ----------
    signals : Signals
        What to take; the policy is that of `trademl.backtest.compiled`.
    """

    params = (("signals", None),)

    def __init__(self) -> None:
        super().__init__()
        self.quotes: Quotes = self.data.p.quotes
        self.decided_at: list[int] = self.p.signals.orders.quote_index.tolist()
        self.row = 0
        self.skipped = 0
        self.bracket: _Bracket | None = None
        self.round_trips: list[_RoundTrip] = []

    def next(self) -> None:
        if self.bracket is not None:
            self._follow(self.bracket)
        while self.row < len(self.decided_at) and self.decided_at[self.row] == self.data.at:
            self._decide(self.row)
            self.row += 1
        if self.bracket is None and self.row == len(self.decided_at):
            self.env.runstop()

    def _decide(self, row: int) -> None:
        if self.bracket is not None:
            self.skipped += 1
            return
        enter = self.buy if self.p.signals.orders.side[row] == Side.BUY else self.sell
        self.bracket = _Bracket(row, enter(size=1))
        self._protect(self.bracket)

    def _protect(self, bracket: _Bracket) -> None:
        """Put the exits around an entry that has filled; the first submitted wins a tie."""
        if bracket.entry.alive():
            return
        orders, row, side = self.p.signals.orders, bracket.row, _side(bracket.entry)
        paid, leave = bracket.entry.executed.price, self.sell if side > 0 else self.buy
        bracket.take_profit = leave(
            size=1, exectype=bt.Order.Limit, price=paid + side * orders.take_profit[row]
        )
        bracket.stop_loss = leave(
            size=1,
            exectype=bt.Order.Stop,
            price=paid - side * orders.stop_loss[row],
            oco=bracket.take_profit,
        )
        entered_at = self.quotes.ts_event[bracket.entry.info.quote_index]
        bracket.expires_at = later(entered_at, orders.time_limit_ns[row])

    def _follow(self, bracket: _Bracket) -> None:
        if not bracket.has_position:
            self._protect(bracket)
        elif bracket.take_profit.status == bt.Order.Completed:
            self._finish(bracket, bracket.take_profit, ExitReason.TAKE_PROFIT)
        elif bracket.stop_loss.status == bt.Order.Completed:
            self._finish(bracket, bracket.stop_loss, ExitReason.STOP_LOSS)
        elif self._time_exit_fills(bracket):
            reason = self._reason(bracket)
            for order in (bracket.take_profit, bracket.stop_loss):
                self.cancel(order)
            self._finish(bracket, self.close(decided_at_ns=bracket.expires_at), reason)

    def _time_exit_fills(self, bracket: _Bracket) -> bool:
        """Say whether the time exit has arrived and finds a quote; until then a barrier may win."""
        arrives_at = later(bracket.expires_at, self.broker.p.costs.latency_ns)
        return bool(self.quotes.flags[self.data.at] == 0 and self.data.now_ns >= arrives_at)

    def _reason(self, bracket: _Bracket) -> ExitReason:
        """Return why a position leaves by its time exit: a barrier's order may be on its way."""
        if self.broker.is_in_flight(bracket.take_profit):
            return ExitReason.TAKE_PROFIT
        if self.broker.is_in_flight(bracket.stop_loss):
            return ExitReason.STOP_LOSS
        return ExitReason.TIME

    def _finish(self, bracket: _Bracket, exit_order: Any, reason: ExitReason) -> None:
        self.round_trips.append(_RoundTrip(bracket.row, bracket.entry, exit_order, reason))
        self.bracket = None


def run_backtrader(quotes: Quotes, signals: Signals, costs: Costs) -> Trades:
    """Trade the signals through backtrader, one position at a time, and return the trades.

    Parameters
    ----------
    quotes : Quotes
        The recording, P quotes; those before the first signal are not fed.
    signals : Signals
        S entries that the model wants, in the order of their decisions.
    costs : Costs
        Fees of both sides, slippage and latency of market fills.

    Raises
    ------
    DataError
        If the signals cannot be traded on the recording.
    """
    check_signals(quotes, signals)
    first = int(signals.orders.quote_index[0]) if len(signals) else len(quotes)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.setbroker(QuoteBroker(costs=costs))
    cerebro.adddata(QuoteFeed(quotes=quotes, first=first))
    cerebro.addstrategy(BarrierStrategy, signals=signals)
    (strategy,) = cerebro.run()
    return _trades(strategy, signals)


def _trades(strategy: BarrierStrategy, signals: Signals) -> Trades:
    done: list[_RoundTrip] = strategy.round_trips
    rows = np.array([trip.row for trip in done], np.int64)
    entries, exits = [trip.entry for trip in done], [trip.exit for trip in done]
    entry_fees = np.array([order.executed.comm for order in entries])
    fees = entry_fees + np.array([order.executed.comm for order in exits])
    left = strategy.bracket
    return Trades(
        order_id=signals.order_id[rows],
        side=np.array([_side(order) for order in entries], np.int8),
        entry_index=np.array([order.info.quote_index for order in entries], np.int64),
        entry_price=np.array([order.executed.price for order in entries]),
        exit_index=np.array([order.info.quote_index for order in exits], np.int64),
        exit_price=np.array([order.executed.price for order in exits]),
        reason=np.array([trip.reason for trip in done], np.int8),
        entry_fees=entry_fees,
        fees=fees,
        pnl=np.array([order.executed.pnl for order in exits]) - fees,
        score=signals.score[rows],
        skipped_while_in_position=strategy.skipped,
        unfilled=int(left is not None and not left.has_position),
        open_at_end=_open_at_end(left, signals),
    )


def _open_at_end(left: _Bracket | None, signals: Signals) -> OpenPosition | None:
    if left is None or not left.has_position:
        return None
    return OpenPosition(
        order_id=int(signals.order_id[left.row]),
        side=_side(left.entry),
        entry_index=int(left.entry.info.quote_index),
        entry_price=left.entry.executed.price,
        entry_fee=left.entry.executed.comm,
        score=float(signals.score[left.row]),
    )
