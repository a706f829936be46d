"""Splits, dividends and rolls: prices without the jumps that no holder earns, and what is paid.

An adjusted price is in units of the first quote: after a split the price is multiplied back, after
a roll the gap between two contracts is taken off. So a position of one unit earns what its prices
say, and barriers and features see no jump. Adjusting forward reads nothing of the future.

Shape letters: P quotes, F events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trademl.errors import DataError
from trademl.market.carry import NO_CARRY, Carry, carry_from, together
from trademl.market.costs import Costs
from trademl.market.fills import slippage_on
from trademl.market.friction import friction_of, tape_of
from trademl.market.quotes import Quotes


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to an instrument between two quotes.

    Parameters
    ----------
    ts_event : int
        From this time on prices are those after the event, UTC nanoseconds.
    split : float
        New shares for an old one; 4 divides the price by 4.
    dividend : float
        Cash for each old share, paid by who has sold it; in quote currency.
    roll_gap : float
        Price of the new contract minus that of the old one, at the moment of the roll.
    is_roll : bool
        A position is moved into the next contract, at the costs of leaving and entering.
    """

    ts_event: int
    split: float = 1.0
    dividend: float = 0.0
    roll_gap: float = 0.0
    is_roll: bool = False

    def __post_init__(self) -> None:
        if not self.split > 0:
            raise DataError(f"a split of {self.split} at {self.ts_event}, expected more than 0")
        if not np.isfinite([self.dividend, self.roll_gap]).all():
            raise DataError(
                f"the event at {self.ts_event} has dividend {self.dividend} and roll gap "
                f"{self.roll_gap}, expected numbers"
            )


def adjust(quotes: Quotes, events: list[Event], costs: Costs) -> tuple[Quotes, Carry]:
    """Return the quotes without the jumps of events, and what the events pay or cost a holder.

    A dividend is paid for each unit held over its time, a roll costs a spread, twice the slippage
    and two fees. Sizes shown follow splits.

    Notes
    -----
    Causal: a price is changed by events at or before its time.
    """
    ratio, offset, parts = np.ones(len(quotes)), np.zeros(len(quotes)), [NO_CARRY]
    for event in sorted(events, key=lambda e: e.ts_event):
        after = slice(int(np.searchsorted(quotes.ts_event, event.ts_event)), None)
        before = ratio[after.start - 1] if after.start else 1.0
        parts.append(_paid(quotes, event, float(before), costs))
        ratio[after] *= event.split
        offset[after] -= event.roll_gap * float(before)
    moved = {
        name: getattr(quotes, name) * ratio + offset
        for name in ("bid", "ask", "mid_open", "high", "low")
    }
    for name in ("bid_size", "ask_size"):
        if (size := getattr(quotes, name)) is not None:
            moved[name] = size / ratio
    return replace(quotes, **moved, volatility=None), together(*parts)


def _paid(quotes: Quotes, event: Event, ratio: float, costs: Costs) -> Carry:
    """Return what an event pays a unit held, in units of the first quote."""
    cash = event.dividend * ratio * costs.multiplier
    bought, sold = cash, -cash
    if event.is_roll:
        cost = _roll_cost(quotes, event, costs)
        bought, sold = bought - cost, sold - cost
    return carry_from(np.array([event.ts_event]), np.array([bought]), np.array([sold]))


def _roll_cost(quotes: Quotes, event: Event, costs: Costs) -> float:
    seen = np.flatnonzero(quotes.is_executable & (quotes.ts_event <= event.ts_event))
    if not len(seen):
        return 0.0
    tape, k = tape_of(quotes, costs), int(seen[-1])
    worse = float(slippage_on(tape.bid, tape.ask, tape.book, friction_of(costs), k, 1.0))
    spread = float(tape.ask[k] - tape.bid[k])
    return costs.multiplier * (spread + 2 * worse) + 2 * costs.fee(float(tape.bid[k]))
