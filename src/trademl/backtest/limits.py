"""What keeps an order from being sent: a venue that rejects it, and limits on risk.

Shape letter: none; one account at a time. The functions are compiled, and every engine calls them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

NS_PER_DAY = 86_400 * 1_000_000_000
GO, REJECTED, HALTED = 0, 1, 2
DAY, DAY_PNL, NET_PNL, PEAK, HALTED_FOR_GOOD = range(5)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on risk and the share of orders that a venue rejects.

    Parameters
    ----------
    daily_loss : float
        Once a UTC day has lost this much, in quote currency, nothing is entered until the next.
    drawdown : float
        Once the account stands this far below its peak, nothing is entered any more.
    max_units : float
        Largest position, in units; larger orders are cut to it.
    reject_share : float
        Share of entries that the venue rejects; which ones follows from ``seed`` and the time of
        the decision alone.
    seed : int
        Another seed rejects others.
    """

    daily_loss: float = float("inf")
    drawdown: float = float("inf")
    max_units: float = float("inf")
    reject_share: float = 0.0
    seed: int = 7

    def __post_init__(self) -> None:
        for name in ("daily_loss", "drawdown", "max_units"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} is {value}, expected more than 0")
        if not 0 <= self.reject_share < 1:
            raise ValueError(f"reject_share is {self.reject_share}, expected from 0 to below 1")

    @property
    def numbers(self) -> LimitNumbers:
        """The limits as compiled code reads them."""
        return LimitNumbers(
            float(self.daily_loss),
            float(self.drawdown),
            float(self.max_units),
            float(self.reject_share),
            int(self.seed),
        )


class LimitNumbers(NamedTuple):
    """`Limits` as numbers."""

    daily_loss: float
    drawdown: float
    max_units: float
    reject_share: float
    seed: int


def new_account() -> NDArray[np.float64]:
    """Return the state of an account that has not traded."""
    return np.zeros(5)


@njit(cache=True, nogil=True, inline="always")
def is_rejected(limits: LimitNumbers, ts: int) -> bool:
    """Say whether the venue rejects an entry decided at ``ts``: splitmix64 of seed and time."""
    if limits.reject_share <= 0:
        return False
    x = np.uint64(ts) + np.uint64(limits.seed) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return bool((x >> np.uint64(11)) * (1.0 / 9007199254740992.0) < limits.reject_share)


@njit(cache=True, nogil=True, inline="always")
def may_enter(limits: LimitNumbers, account: NDArray[np.float64], ts: int) -> int:
    """Return GO, REJECTED or HALTED for an entry that is decided at ``ts``."""
    if ts // NS_PER_DAY != account[DAY]:
        account[DAY], account[DAY_PNL] = ts // NS_PER_DAY, 0.0
    if account[PEAK] - account[NET_PNL] >= limits.drawdown:
        account[HALTED_FOR_GOOD] = 1.0
    if account[HALTED_FOR_GOOD] == 1.0 or account[DAY_PNL] <= -limits.daily_loss:
        return HALTED
    return REJECTED if is_rejected(limits, ts) else GO


@njit(cache=True, nogil=True, inline="always")
def account_for(account: NDArray[np.float64], ts: int, pnl: float) -> None:
    """Count the profit of a position that ended at ``ts``."""
    if ts // NS_PER_DAY != account[DAY]:
        account[DAY], account[DAY_PNL] = ts // NS_PER_DAY, 0.0
    account[DAY_PNL] += pnl
    account[NET_PNL] += pnl
    account[PEAK] = max(account[PEAK], account[NET_PNL])


@njit(cache=True, nogil=True, inline="always")
def account_value(account: NDArray[np.float64], ts: int, value: float) -> None:
    """Count what an account is worth at ``ts``, its open position marked."""
    if ts // NS_PER_DAY != account[DAY]:
        account[DAY], account[DAY_PNL] = ts // NS_PER_DAY, 0.0
    account[DAY_PNL] += value - account[NET_PNL]
    account[NET_PNL] = value
    account[PEAK] = max(account[PEAK], value)


@njit(cache=True, nogil=True, inline="always")
def may_hold(limits: LimitNumbers, account: NDArray[np.float64]) -> bool:
    """Say whether a position may be held, after `account_value`; a drawdown ends it for good."""
    if account[PEAK] - account[NET_PNL] >= limits.drawdown:
        account[HALTED_FOR_GOOD] = 1.0
    return bool(account[HALTED_FOR_GOOD] == 0.0 and account[DAY_PNL] > -limits.daily_loss)
