"""The engine's own backtrader strategies: signals between barriers, and targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np

from trademl.backtest.limits import (
    GO,
    REJECTED,
    account_for,
    account_value,
    may_enter,
    may_hold,
    new_account,
)
from trademl.market.carry import carried
from trademl.market.fills import later
from trademl.market.orders import ExitReason, Side
from trademl.market.quotes import Quotes


def side_of(order: Any) -> int:
    """Return +1 for an order that buys, -1 for one that sells."""
    return int(Side.BUY if order.isbuy() else Side.SELL)


@dataclass(slots=True)
class Bracket:
    """One signal on its way: an entry, then a position between its two resting exits."""

    row: int
    entry: Any
    take_profit: Any = None
    stop_loss: Any = None
    time_exit: Any = None
    expires_at: int = 0

    @property
    def has_position(self) -> bool:
        return self.take_profit is not None


@dataclass(frozen=True, slots=True)
class RoundTrip:
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
    limits : Limits
        Which entries are not made.
    """

    params = (("signals", None), ("limits", None))

    def __init__(self) -> None:
        super().__init__()
        self.quotes: Quotes = self.data.p.quotes
        self.decided_at: list[int] = self.p.signals.orders.quote_index.tolist()
        self.sizes = np.minimum(self.p.signals.units, self.p.limits.max_units).tolist()
        self.limits, self.account = self.p.limits.numbers, new_account()
        self.row = 0
        self.skipped, self.rejected, self.halted = 0, 0, 0
        self.bracket: Bracket | None = None
        self.round_trips: list[RoundTrip] = []

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
        if (allowed := may_enter(self.limits, self.account, self.data.now_ns)) != GO:
            self.rejected += allowed == REJECTED
            self.halted += allowed != REJECTED
            return
        enter = self.buy if self.p.signals.orders.side[row] == Side.BUY else self.sell
        self.bracket = Bracket(row, enter(size=self.sizes[row], ioc=True))
        self._protect(self.bracket)

    def _protect(self, bracket: Bracket) -> None:
        """Put the exits around an entry that has filled; the first submitted wins a tie."""
        if bracket.entry.alive():
            return
        orders, row, side = self.p.signals.orders, bracket.row, side_of(bracket.entry)
        paid, leave = bracket.entry.executed.price, self.sell if side > 0 else self.buy
        entered_at = self.quotes.ts_event[bracket.entry.info.quote_index]
        bracket.expires_at = later(entered_at, orders.time_limit_ns[row])
        units = abs(bracket.entry.executed.size)
        clock_ns = later(bracket.expires_at, self.broker.p.costs.latency_ns)
        bracket.take_profit = leave(
            size=units,
            exectype=bt.Order.Limit,
            price=paid + side * orders.take_profit[row],
            rest_at_market=True,
            clock_ns=clock_ns,
        )
        bracket.stop_loss = leave(
            size=units,
            exectype=bt.Order.Stop,
            price=paid - side * orders.stop_loss[row],
            oco=bracket.take_profit,
            clock_ns=clock_ns,
        )

    def _follow(self, bracket: Bracket) -> None:
        if not bracket.has_position:
            self._protect(bracket)
        elif bracket.take_profit.status == bt.Order.Completed:
            self._finish(bracket, bracket.take_profit, ExitReason.TAKE_PROFIT)
        elif bracket.stop_loss.status == bt.Order.Completed:
            self._finish(bracket, bracket.stop_loss, ExitReason.STOP_LOSS)
        elif bracket.time_exit is None and self._time_exit_fills(bracket):
            for order in (bracket.take_profit, bracket.stop_loss):
                self.cancel(order)
            bracket.time_exit = self.close(decided_at_ns=bracket.expires_at)
        if bracket.time_exit is not None and not bracket.time_exit.alive():
            self._finish(bracket, bracket.time_exit, ExitReason.TIME)

    def _time_exit_fills(self, bracket: Bracket) -> bool:
        """Say whether the time exit has arrived and finds a quote; until then a barrier may win."""
        if any(self.broker.is_in_flight(o) for o in (bracket.take_profit, bracket.stop_loss)):
            return False
        arrives_at = later(bracket.expires_at, self.broker.p.costs.latency_ns)
        return bool(self.quotes.flags[self.data.at] == 0 and self.data.now_ns >= arrives_at)

    def _finish(self, bracket: Bracket, exit_order: Any, reason: ExitReason) -> None:
        self.round_trips.append(RoundTrip(bracket.row, bracket.entry, exit_order, reason))
        self.bracket = None
        earned = exit_order.executed.pnl - exit_order.executed.comm - bracket.entry.executed.comm
        if self.broker.has_carry:
            side, units = side_of(bracket.entry), abs(bracket.entry.executed.size)
            at = [self.quotes.ts_event[o.info.quote_index] for o in (bracket.entry, exit_order)]
            earned += units * carried(self.broker.p.carry, side, *at)
        account_for(self.account, self.data.now_ns, earned)


class TargetStrategy(bt.Strategy):  # type: ignore[misc]
    """Hold at each decision what a list of targets says, by market orders.

    Parameters
    ----------
    targets : Targets
        What to hold; the policy is that of `trademl.backtest.targets`.
    limits : Limits
        When nothing is held.
    """

    params = (("targets", None), ("limits", None))

    def __init__(self) -> None:
        super().__init__()
        self.decided_at: list[int] = self.p.targets.quote_index.tolist()
        self.units: list[float] = self.p.targets.units.tolist()
        self.limits, self.account = self.p.limits.numbers, new_account()
        self.row, self.wanted, self.halted = 0, 0.0, 0
        self.order: Any = None

    def next(self) -> None:
        if self.row < len(self.decided_at) and self.decided_at[self.row] == self.data.at:
            self._decide(self.units[self.row])
            self.row += 1

    def _decide(self, wanted: float) -> None:
        most = self.limits.max_units
        account_value(self.account, self.data.now_ns, self.broker.getvalue())
        if not may_hold(self.limits, self.account):
            self.halted += wanted != 0
            wanted = 0.0
        wanted = min(max(wanted, -most), most)
        if wanted == self.wanted:
            return
        self.wanted = wanted
        if self.order is not None and self.order.alive():
            self.cancel(self.order)
        change = wanted - self.position.size
        if change:
            self.order = (self.buy if change > 0 else self.sell)(size=abs(change))
