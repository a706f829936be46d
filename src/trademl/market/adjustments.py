"""Splits, dividends and rolls: prices without the jumps that no holder earns, and what is paid.

An adjusted price is in units of the first quote: after a split the price is multiplied back, after
a roll the gap between two contracts is taken off. So a position of one unit earns what its prices
say, and barriers and features see no jump. Adjusting forward reads nothing of the future.

Shape letters: P quotes, F events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trademl.errors import DataError
from trademl.market.carry import Carry, carry_from, financing, together
from trademl.market.costs import Costs
from trademl.market.events import Event
from trademl.market.friction import friction_of, slippage_on, tape_of
from trademl.market.quotes import Quotes


def adjust(quotes: Quotes, events: Sequence[Event]) -> Quotes:
    """Return the quotes without the jumps of events, which they remember: see `payments`.

    Sizes shown follow splits.

    Raises
    ------
    DataError
        If the quotes are adjusted already, or a roll takes a price below 0.

    Notes
    -----
    Causal: a price is changed by events at or before its time.
    """
    if not events:
        return quotes
    if quotes.events:
        raise DataError("the quotes are adjusted already: give all events at once")
    known = tuple(sorted(events, key=lambda e: e.ts_event))
    ratio, offset = np.ones(len(quotes)), np.zeros(len(quotes))
    for event in known:
        after = slice(int(np.searchsorted(quotes.ts_event, event.ts_event)), None)
        offset[after] -= event.roll_gap * ratio[after]
        ratio[after] *= event.split
    moved = {
        name: getattr(quotes, name) * ratio + offset
        for name in ("bid", "ask", "mid_open", "high", "low")
    }
    if (bad := (moved["bid"] <= 0) | (moved["ask"] <= 0)).any():
        raise DataError(
            f"rolls take the price at {quotes.ts_event[bad][0]} ns to {moved['bid'][bad][0]:g}, "
            "expected above 0: check roll_gap, or begin the recording later"
        )
    for name in ("bid_size", "ask_size"):
        if (size := getattr(quotes, name)) is not None:
            moved[name] = size / ratio
    return replace(quotes, **moved, volatility=None, events=known)


def payments(quotes: Quotes, costs: Costs) -> Carry:
    """Return what holding a unit of the first quote is paid: nights, dividends and rolls.

    A dividend is paid for each share held over its time, a roll costs a spread, twice the slippage
    and two fees.
    """
    parts, ratio, offset = [financing(quotes, costs)], 1.0, 0.0
    for event in quotes.events:
        cash = event.dividend * ratio * costs.multiplier
        cost = _roll_cost(quotes, event, (ratio, offset), costs) if event.is_roll else 0.0
        paid = (np.array([cash - cost]), np.array([-cash - cost]))
        parts.append(carry_from(np.array([event.ts_event]), *paid))
        offset -= event.roll_gap * ratio
        ratio *= event.split
    return together(*parts)


def _roll_cost(quotes: Quotes, event: Event, moved: tuple[float, float], costs: Costs) -> float:
    """Return what moving a unit into the next contract costs, on the last quote before it.

    ``moved`` is the ratio and the offset of that quote's prices.
    """
    seen = np.flatnonzero(quotes.is_executable & (quotes.ts_event < event.ts_event))
    if not len(seen):
        return 0.0
    tape, k, (ratio, offset) = tape_of(quotes, costs), int(seen[-1]), moved
    worse = float(slippage_on(tape.bid, tape.ask, tape.book, friction_of(costs), k, 1.0))
    spread = float(tape.ask[k] - tape.bid[k])
    price = (float(tape.bid[k]) - offset) / ratio
    return costs.multiplier * (spread + 2 * worse) + 2 * costs.fee(price)
