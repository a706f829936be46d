"""The fill model one quote at a time: an order carried live, from its decision to its exit.

What `trademl.market.fills.settle_one` finds in a recording, this finds as the quotes come, by the
same functions and the same rules.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import numpy as np

from trademl.market.fills import (
    CENSORED,
    ROUNDING,
    TAKE_PROFIT,
    TIME,
    barrier_reached,
    barriers,
    exit_touch,
    fill_entry,
    later,
    market_exit_price,
    shown,
)
from trademl.market.friction import Friction, Tape, slippage_on


class Stage(Enum):
    """How far an order has come."""

    ENTERING = "entering"
    HELD = "held"
    LEAVING = "leaving"
    DONE = "done"


class Part(NamedTuple):
    """One fill of an order: of its entry, or of its exit."""

    is_entry: bool
    ts_ns: int
    units: float
    price: float


class OpenOrder:
    """An order with its barriers and its time limit, from its decision to its exit.

    Parameters
    ----------
    side : int
        +1 buys, -1 sells.
    take_profit, stop_loss : float
        Barrier distances from the entry price, in quote currency.
    time_limit_ns : int
        Longest life of the position after its entry.
    size : float
        Units wanted.
    decided_ns : int
        Time of the quote on which it is decided.

    Attributes
    ----------
    stage : Stage
    units : float
        Units held, or held until the exit; 0 before the entry.
    entry_ns, exit_ns : int
        Times of entry and of the last fill of the exit; -1 before.
    entry_price, exit_price : float
        Mean prices; NaN before.
    reason : int
        Value of `ExitReason`, CENSORED before an exit is sent.

    Notes
    -----
    Causal: what it does on a quote reads that quote and those before.
    """

    def __init__(
        self,
        side: int,
        take_profit: float,
        stop_loss: float,
        time_limit_ns: int,
        size: float,
        *,
        decided_ns: int,
        friction: Friction,
    ) -> None:
        self.side, self._size, self._friction = side, size, friction
        self._take_profit, self._stop_loss = take_profit, stop_loss
        self._time_limit_ns = time_limit_ns
        self._moment_ns = later(decided_ns, friction.seen_ns)
        self.stage, self.units, self.reason = Stage.ENTERING, 0.0, CENSORED
        self.entry_ns, self.exit_ns = -1, -1
        self.entry_price, self.exit_price = np.nan, np.nan
        self._clock_ns = 0
        self._limit_units, self._limit_price = 0.0, 0.0  # what a take profit filled as it rested
        self._sent, self._rest, self._paid = 0.0, 0.0, 0.0  # of the market order that leaves

    def on_quote(self, tape: Tape) -> list[Part]:
        """Return what the next quote fills, given as a tape of one.

        The first quote to be given is that of the decision.
        """
        if tape.flags[0] != 0 or self.stage is Stage.DONE:
            return []
        if self.stage is Stage.ENTERING:
            return self._enter(tape)
        if self.stage is Stage.HELD:
            return self._watch(tape)
        return self._leave(tape)

    def _enter(self, tape: Tape) -> list[Part]:
        ts_ns = int(tape.ts[0])
        if ts_ns < self._moment_ns or not shown(tape.book, self.side, 0) > 0:
            return []
        units, price = fill_entry(
            tape.bid, tape.ask, tape.book, self._friction, 0, self.side, self._size
        )
        self.stage, self.entry_ns = Stage.HELD, ts_ns
        self.units, self.entry_price = float(units), float(price)
        self._clock_ns = later(later(ts_ns, self._time_limit_ns), self._friction.latency_ns)
        return [Part(True, ts_ns, self.units, self.entry_price)]

    def _watch(self, tape: Tape) -> list[Part]:
        distances = (self.entry_price, self._take_profit, self._stop_loss)
        touch = exit_touch(self.side, tape.bid[0], tape.ask[0])
        reason = barrier_reached(self.side, touch, *distances)
        if reason == CENSORED and tape.ts[0] < self._clock_ns:
            return []
        self.stage = Stage.LEAVING
        self._sent = self._rest = self.units
        self.reason, self._moment_ns = TIME, self._clock_ns
        if reason == CENSORED:
            return self._leave(tape)
        arrives_ns = later(int(tape.ts[0]), self._friction.seen_ns)
        self.reason, self._moment_ns = reason, min(self._clock_ns, arrives_ns)
        if reason == TAKE_PROFIT and not self._friction.take_profit_is_market:
            return self._fill_limit(tape, float(barriers(self.side, *distances)[0]))
        return self._leave(tape)

    def _fill_limit(self, tape: Tape, price: float) -> list[Part]:
        """Fill a resting take profit as far as the quote shows units; the rest leaves at market."""
        part = min(self.units, float(shown(tape.book, -self.side, 0)))
        self._limit_units, self._limit_price = part, price
        self._sent = self._rest = self.units - part
        ts_ns = int(tape.ts[0])
        if part == self.units:
            self._end(ts_ns, price)
        return [Part(False, ts_ns, part, price)] if part > 0 else []

    def _leave(self, tape: Tape) -> list[Part]:
        ts_ns = int(tape.ts[0])
        part = min(self._rest, float(shown(tape.book, -self.side, 0)))
        if ts_ns < self._moment_ns or not part > 0:
            return []
        worse = slippage_on(tape.bid, tape.ask, tape.book, self._friction, 0, part)
        price = float(market_exit_price(self.side, tape.bid[0], tape.ask[0], worse))
        if part == self._sent:
            self._end(ts_ns, self._mean(price))
        else:
            self._rest, self._paid = self._rest - part, self._paid + part * price
            if not self._rest > ROUNDING * self._sent:
                self._end(ts_ns, self._mean(self._paid / self._sent))
        return [Part(False, ts_ns, part, price)]

    def _mean(self, price: float) -> float:
        """Return the mean price of the exit, given that of its market order."""
        if self._limit_price == 0.0:
            return price
        part, size = self._limit_units, self.units
        return (part * self._limit_price + (size - part) * price) / size

    def _end(self, ts_ns: int, price: float) -> None:
        self.stage, self.exit_ns, self.exit_price = Stage.DONE, ts_ns, price
