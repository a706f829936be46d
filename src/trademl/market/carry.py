"""What holding a position earns or costs while its price stands still: nights, dividends, rolls.

Shape letters: F moments at which something is paid, N positions.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.errors import ConfigError
from trademl.market.costs import Costs
from trademl.market.quotes import NS_PER_S, Quotes

DAYS_PER_YEAR = 365


class Carry(NamedTuple):
    """Sums of what one unit held since the beginning was paid, in quote currency.

    Parameters
    ----------
    ts : ndarray of int64, shape (F,)
        Moments, UTC nanoseconds, never decreasing.
    bought, sold : ndarray of float64, shape (F + 1,)
        Paid to a bought and to a sold unit before each moment, and after the last; negative where
        the holder pays.
    """

    ts: NDArray[np.int64]
    bought: NDArray[np.float64]
    sold: NDArray[np.float64]


NO_CARRY = Carry(np.empty(0, np.int64), np.zeros(1), np.zeros(1))


def carry_from(
    ts_F: NDArray[np.int64], bought_F: NDArray[np.float64], sold_F: NDArray[np.float64]
) -> Carry:
    """Return payments in any order of time as `Carry`."""
    order = np.argsort(ts_F, kind="stable")
    sums = (np.concatenate(([0.0], np.cumsum(paid[order]))) for paid in (bought_F, sold_F))
    return Carry(ts_F[order], *sums)


def together(*parts: Carry) -> Carry:
    """Return the payments of several kinds as one."""
    kept = [part for part in parts if len(part.ts)]
    if len(kept) < 2:
        return kept[0] if kept else NO_CARRY
    return carry_from(
        np.concatenate([part.ts for part in kept]),
        np.concatenate([np.diff(part.bought) for part in kept]),
        np.concatenate([np.diff(part.sold) for part in kept]),
    )


@njit(nogil=True)
def carried(carry: Carry, side: int, from_ns: int, to_ns: int) -> float:
    """Return what one unit is paid after ``from_ns`` and up to ``to_ns``, that moment included."""
    first = np.searchsorted(carry.ts, from_ns, side="right")
    last = np.searchsorted(carry.ts, to_ns, side="right")
    sums = carry.bought if side > 0 else carry.sold
    return sums[last] - sums[first]  # type: ignore[no-any-return]


def carried_each(
    carry: Carry,
    side_N: NDArray[np.int8],
    from_ns_N: NDArray[np.int64],
    to_ns_N: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return `carried` of N positions."""
    if not len(carry.ts):
        return np.zeros(len(side_N))
    first, last = (np.searchsorted(carry.ts, at, side="right") for at in (from_ns_N, to_ns_N))
    bought, sold = (sums[last] - sums[first] for sums in (carry.bought, carry.sold))
    return np.where(side_N > 0, bought, sold)


def financing(quotes: Quotes, costs: Costs) -> Carry:
    """Return the payments for each night of a recording: one a calendar day, weekends too.

    A night is charged on the last executable mid before it, at a 365th of the yearly rate.

    Raises
    ------
    ConfigError
        If the rollover's time or zone cannot be understood.
    """
    rates = (costs.financing_long_pct, costs.financing_short_pct)
    if not any(rates):
        return NO_CARRY
    if not len(seen := np.flatnonzero(quotes.is_executable)):
        return NO_CARRY
    ts_F = _rollovers(int(quotes.ts_event[0]), int(quotes.ts_event[-1]), costs)
    last = np.searchsorted(quotes.ts_event[seen], ts_F, side="right") - 1
    ts_F, last = ts_F[last >= 0], last[last >= 0]
    value_F = quotes.mid[seen[last]] * costs.multiplier
    bought, sold = (-value_F * pct / 100 / DAYS_PER_YEAR for pct in rates)
    return carry_from(ts_F, bought, sold)


def _rollovers(first_ns: int, last_ns: int, costs: Costs) -> NDArray[np.int64]:
    try:
        at, zone = time.fromisoformat(costs.rollover), ZoneInfo(costs.rollover_timezone)
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise ConfigError(
            f"rollover is {costs.rollover!r} in {costs.rollover_timezone!r}: expected a time "
            "HH:MM and a zone such as America/New_York"
        ) from error
    day = datetime.fromtimestamp(first_ns // NS_PER_S, UTC).date() - timedelta(days=1)
    end = datetime.fromtimestamp(last_ns // NS_PER_S, UTC).date() + timedelta(days=1)
    found = []
    while day <= end:
        found.append(round(datetime.combine(day, at, zone).timestamp()) * NS_PER_S)
        day += timedelta(days=1)
    moments = np.array(found, np.int64)
    inside: NDArray[np.int64] = moments[(moments > first_ns) & (moments <= last_ns)]
    return inside
