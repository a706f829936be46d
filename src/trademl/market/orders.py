"""Orders with barriers, and the round trips that they become.

Shape letter: N orders.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Side(IntEnum):
    """Direction of the entry."""

    BUY = 1
    SELL = -1


class ExitReason(IntEnum):
    """Why a round trip ended.

    CENSORED means that the recording ended first, SIGNAL that the strategy wanted out.
    """

    CENSORED = 0
    TAKE_PROFIT = 1
    STOP_LOSS = 2
    TIME = 3
    SIGNAL = 4


@dataclass(frozen=True, slots=True)
class Orders:
    """Market entries with a take profit, a stop loss and a time limit; arrays of shape (N,).

    Parameters
    ----------
    quote_index : ndarray of int64
        Index of the quote on which each order is decided, never decreasing.
    side : ndarray of int8
        Values of `Side`.
    take_profit, stop_loss : ndarray of float64
        Barrier distances from the entry price, in quote currency, above 0.
    time_limit_ns : ndarray of int64
        Longest life of a position after its entry.
    """

    quote_index: NDArray[np.int64]
    side: NDArray[np.int8]
    take_profit: NDArray[np.float64]
    stop_loss: NDArray[np.float64]
    time_limit_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.quote_index)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Orders:
        """Return the chosen orders."""
        return Orders(*(getattr(self, f.name)[rows] for f in fields(self)))

    def shift(self, by: int) -> Orders:
        """Return the orders for a recording that begins ``-by`` quotes later."""
        return replace(self, quote_index=self.quote_index + by)


@dataclass(frozen=True, slots=True)
class Transactions:
    """Round trips, one per order; arrays of shape (N,).

    Parameters
    ----------
    entry_index, exit_index : ndarray of int64
        Quotes on which the order filled; -1 where it did not.
    entry_price, exit_price : ndarray of float64
        Prices filled; NaN where not.
    reason : ndarray of int8
        Values of `ExitReason`.
    fees, pnl : ndarray of float64
        Both fees, and profit after spread, slippage and fees, per unit, in quote currency;
        NaN where censored.
    """

    entry_index: NDArray[np.int64]
    entry_price: NDArray[np.float64]
    exit_index: NDArray[np.int64]
    exit_price: NDArray[np.float64]
    reason: NDArray[np.int8]
    fees: NDArray[np.float64]
    pnl: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.entry_index)

    @property
    def label(self) -> NDArray[np.float32]:
        """1 where the round trip earned money after costs, else 0; NaN where censored."""
        return label_of(self.pnl)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Transactions:
        """Return the chosen round trips."""
        return Transactions(*(getattr(self, f.name)[rows] for f in fields(self)))

    def shift(self, by: int) -> Transactions:
        """Return the round trips for a recording that begins ``-by`` quotes later."""
        moved = (np.where(i >= 0, i + by, -1) for i in (self.entry_index, self.exit_index))
        entry_index, exit_index = moved
        return replace(self, entry_index=entry_index, exit_index=exit_index)


def label_of(pnl_N: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return 1 where a round trip earned money after costs, else 0; NaN where it has no PnL."""
    earned_N = (pnl_N > 0).astype(np.float32)
    return np.where(np.isnan(pnl_N), np.float32(np.nan), earned_N)
