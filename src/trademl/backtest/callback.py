"""The callback engine: one Python function that is called on every quote, on the same fills.

The function sees a quote and what came before it, and answers with an order or with nothing. Its
positions are carried by the compiled fill model; the policy is that of `trademl.backtest.compiled`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.compiled import NO_LIMITS, net_of
from trademl.backtest.limits import GO, REJECTED, Limits, account_for, may_enter, new_account
from trademl.backtest.trades import Trades, Trips
from trademl.errors import DataError
from trademl.market.adjustments import payments
from trademl.market.carry import Carry
from trademl.market.compiling import fill_kernel
from trademl.market.costs import Costs
from trademl.market.fills import leave_from, settle_one
from trademl.market.friction import Tape, friction_of, tape_of
from trademl.market.orders import ExitReason, Side
from trademl.market.quotes import NS_PER_S, Quotes

ROWS_AT_ONCE = 65_536
NEVER = 2**62


class Leave(Enum):
    """The answer that a position should be left at market now."""

    NOW = "leave"


LEAVE: Final = Leave.NOW


@dataclass(frozen=True, slots=True)
class Bracket:
    """The answer that a position should be entered, between two barriers and a time limit.

    Parameters
    ----------
    side : Side
        Which way.
    take_profit, stop_loss : float
        Barrier distances from the entry price, in quote currency, above 0; infinity for none.
    time_limit_s : float
        Longest life of the position; infinity for none.
    size : float
        Units.
    score : float
        Kept with the trade.
    order_id : int
        Kept with the trade; the quote's index where left out.
    """

    side: Side
    take_profit: float = np.inf
    stop_loss: float = np.inf
    time_limit_s: float = np.inf
    size: float = 1.0
    score: float = np.nan
    order_id: int = -1

    def __post_init__(self) -> None:
        for name in ("take_profit", "stop_loss", "size"):
            if not (value := getattr(self, name)) > 0:
                raise DataError(f"an order has {name} {value}, expected more than 0")

    @property
    def time_limit_ns(self) -> int:
        """The time limit in nanoseconds."""
        return NEVER if self.time_limit_s == np.inf else round(self.time_limit_s * NS_PER_S)


class Moment:
    """What a policy may know on a quote.

    Attributes
    ----------
    index : int
        Number of the quote in the recording.
    ts_event_ns : int
        Its time, UTC nanoseconds.
    bid, ask : float
        Its prices; NaN where a side is absent.
    position : float
        Units held, negative where sold.
    """

    __slots__ = ("_tape", "ask", "bid", "index", "position", "ts_event_ns")

    def __init__(self, tape: Tape) -> None:
        self.index, self.ts_event_ns, self.bid, self.ask = 0, 0, 0.0, 0.0
        self.position = 0.0
        self._tape = tape

    def history(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the last ``n`` bids and asks, oldest first, this quote's last; read only."""
        rows = slice(max(0, self.index + 1 - n), self.index + 1)
        bid, ask = self._tape.bid[rows], self._tape.ask[rows]
        bid.flags.writeable = ask.flags.writeable = False
        return bid, ask


Decide = Callable[[Moment], Bracket | Leave | None]


def run_callback(
    quotes: Quotes,
    decide: Decide,
    costs: Costs,
    *,
    limits: Limits = NO_LIMITS,
    carry: Carry | None = None,
) -> Trades:
    """Trade what a function decides, called on every quote, and return the trades.

    Parameters
    ----------
    decide : callable
        Takes a `Moment`; returns a `Bracket` to enter, ``LEAVE`` to close, or None. An order while
        a position is open or on its way is counted as skipped; LEAVE without one does nothing.

    Returns
    -------
    Trades
        Where the function raised, those that had ended, with ``stopped`` saying what and where.

    Notes
    -----
    Causal: the function sees quotes up to the one that it is called on.
    """
    book = _Book(quotes, costs, limits, carry)
    now = Moment(book.tape)
    for rows in _blocks(book.tape):
        for now.index, now.ts_event_ns, now.bid, now.ask in rows:
            if now.index >= book.next_event:
                book.catch_up(now)
            try:
                answer = decide(now)
            except Exception as error:  # the user's code: what it raises ends the run, and is kept
                book.stop(now.index, _where(error, now))
                return book.trades()
            if answer is not None:
                book.act(now, answer)
    return book.trades()


def _blocks(tape: Tape) -> Iterator[Iterable[tuple[int, int, float, float]]]:
    """Yield index, time, bid and ask as Python numbers, without a copy of the recording."""
    for start in range(0, len(tape.ts), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(tape.ts))
        columns: list[Any] = [np.ascontiguousarray(c[start:stop]) for c in tape[:3]]
        yield zip(range(start, stop), *(memoryview(c) for c in columns), strict=True)


def _where(error: Exception, now: Moment) -> str:
    at = datetime.fromtimestamp(now.ts_event_ns / NS_PER_S, UTC).isoformat(timespec="milliseconds")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"the strategy raised {type(error).__name__}: {error} ({frame.filename}, line "
        f"{frame.lineno}) on quote {now.index} of {at}"
    )


class _Book:
    """The positions of one run: what is held, and what became of the rest."""

    def __init__(self, quotes: Quotes, costs: Costs, limits: Limits, carry: Carry | None) -> None:
        self.tape, self._friction = tape_of(quotes, costs), friction_of(costs)
        self._market = (*self.tape, self._friction)
        self._costs, self._limits, self._account = costs, limits.numbers, new_account()
        self._carry = payments(quotes, costs) if carry is None else carry
        self._answers: list[Bracket] = []
        self._found: list[list[Any]] = []  # decision, entry, paid, exit, got, reason, units
        self._is_busy, self.next_event = False, NEVER
        self._skipped, self._rejected, self._halted = 0, 0, 0
        self.stopped: str | None = None

    def catch_up(self, now: Moment) -> None:
        """Let the fills up to this quote happen."""
        _, entered, paid, left, got, _, units = self._found[-1]
        side = int(self._answers[-1].side)
        if left >= 0 and now.index >= left:
            now.position, self._is_busy, self.next_event = 0.0, False, NEVER
            ts = self.tape.ts
            net = _net(ts, self._friction, self._carry, side, entered, left, paid, got, units)
            account_for(self._account, ts[left], net)
        elif entered >= 0:
            now.position, self.next_event = side * units, left if left >= 0 else NEVER

    def act(self, now: Moment, answer: Bracket | Leave) -> None:
        """Do what the policy asks for on this quote."""
        if answer is LEAVE:
            if now.position:
                self._leave(now)
        elif self._is_busy:
            self._skipped += 1
        elif isinstance(answer, Bracket):
            self._enter(now, answer)
        else:
            raise DataError(f"the policy answered {answer!r}, expected a Bracket, LEAVE or None")

    def _enter(self, now: Moment, answer: Bracket) -> None:
        if (allowed := may_enter(self._limits, self._account, now.ts_event_ns)) != GO:
            self._rejected += allowed == REJECTED
            self._halted += allowed != REJECTED
            return
        found = _settle(
            *self._market,
            now.index,
            int(answer.side),
            float(answer.take_profit),
            float(answer.stop_loss),
            answer.time_limit_ns,
            float(min(answer.size, self._limits.max_units)),
        )
        self._answers.append(answer)
        self._found.append([now.index, *found])
        self._is_busy, self.next_event = True, found[0] if found[0] >= 0 else NEVER
        if found[0] == now.index:
            self.catch_up(now)

    def _leave(self, now: Moment) -> None:
        """Send a market order for the position; a barrier on its way, or reached first, counts."""
        answer, row = self._answers[-1], self._found[-1]
        _, entered, paid, _, _, _, units = row
        clock_ns = now.ts_event_ns + self._friction.seen_ns
        limit_ns = int(self.tape.ts[entered]) + answer.time_limit_ns + self._friction.latency_ns
        if clock_ns >= limit_ns:
            return
        left, got, reason = _leave_now(
            *self._market,
            entered,
            int(answer.side),
            paid,
            float(answer.take_profit),
            float(answer.stop_loss),
            clock_ns,
            now.index,
            units,
        )
        row[3:6] = left, got, ExitReason.SIGNAL if reason == ExitReason.TIME else reason
        self.next_event = left if left >= 0 else NEVER
        if left == now.index:
            self.catch_up(now)

    def stop(self, index: int, why: str) -> None:
        """Forget fills after a quote, which nobody saw."""
        self.stopped = why
        if self._found and self._found[-1][1] > index:
            self._found[-1][1:] = -1, np.nan, -1, np.nan, ExitReason.CENSORED, 0.0
        elif self._found and self._found[-1][3] > index:
            self._found[-1][3:6] = -1, np.nan, ExitReason.CENSORED

    def trades(self) -> Trades:
        """Return what came of it."""
        rows = self._found
        decided, entered, paid, left, got, reason, units = (
            zip(*rows, strict=True) if rows else [()] * 7
        )
        ids = [
            a.order_id if a.order_id >= 0 else k
            for a, k in zip(self._answers, decided, strict=True)
        ]
        trips = Trips(
            np.array(ids, np.int64),
            np.array([answer.side for answer in self._answers], np.int8),
            np.array([entered, left], np.int64).T.reshape(-1, 2),
            np.array([paid, got], float).T.reshape(-1, 2),
            np.array(reason, np.int8),
            np.array(units, float),
            np.array([answer.score for answer in self._answers], float),
            np.array(decided, np.int64),
        )
        counts = {"rejected": self._rejected, "halted": self._halted}
        made = trips.trades(
            self.tape.ts,
            self._costs,
            self._carry,
            skipped_while_in_position=self._skipped,
            **counts,
        )
        return replace(made, stopped=self.stopped)


@fill_kernel
def _settle(  # type: ignore[no-untyped-def]
    ts, bid, ask, flags, book, friction, at, side, take_profit, stop_loss, limit_ns, size
):
    """Carry one order; plain arguments, which take Python less time to hand over than tuples."""
    return settle_one(
        ts, bid, ask, flags, book, friction, at, side, take_profit, stop_loss, limit_ns, size
    )


@fill_kernel
def _leave_now(  # type: ignore[no-untyped-def]
    ts,
    bid,
    ask,
    flags,
    book,
    friction,
    entered,
    side,
    paid,
    take_profit,
    stop_loss,
    clock_ns,
    clock_from,
    units,
):
    return leave_from(
        ts,
        bid,
        ask,
        flags,
        book,
        friction,
        entered,
        side,
        paid,
        take_profit,
        stop_loss,
        clock_ns,
        clock_from,
        units,
    )


@fill_kernel
def _net(ts, friction, carry, side, entered, left, paid, got, units):  # type: ignore[no-untyped-def]
    return net_of(ts, friction, carry, side, entered, left, paid, got, units)
