"""What an engine did with the signals: round trips, and the signals that became none.

Shape letter: N trades.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class OpenPosition:
    """A position of one unit that the end of the recording left open: not a trade.

    Parameters
    ----------
    order_id : int
        Identity of the order that opened it.
    side : int
        Value of `Side`.
    entry_index : int
        Quote on which it was entered.
    entry_price, entry_fee : float
        Price filled and fee paid, in quote currency.
    score : float
        Score of the signal.
    """

    order_id: int
    side: int
    entry_index: int
    entry_price: float
    entry_fee: float
    score: float


@dataclass(frozen=True, slots=True)
class Trades:
    """Round trips of one unit, one after the other; arrays of shape (N,).

    Every flagged signal is a trade, or counted as skipped, unfilled or open at the end.

    Parameters
    ----------
    order_id : ndarray of int64
        Identity of the order of each trade.
    side : ndarray of int8
        Values of `Side`.
    entry_index, exit_index : ndarray of int64
        Quotes of the fills; each exit is after its entry and not after the next entry.
    entry_price, exit_price : ndarray of float64
        Prices filled, slippage included, in quote currency.
    reason : ndarray of int8
        Values of `ExitReason`, never CENSORED.
    entry_fees : ndarray of float64
        The part of ``fees`` that is paid at the entry.
    fees, pnl : ndarray of float64
        Both fees, and profit after spread, slippage and fees, in quote currency.
    score : ndarray of float64
        Score of each trade's signal.
    skipped_while_in_position : int
        Signals passed over because a position was open or an entry was waiting for a fill.
    unfilled : int
        Signals taken (0 or 1) whose entry found no executable quote before the recording ended.
    open_at_end : OpenPosition, optional
        What the end of the recording left open.
    """

    order_id: NDArray[np.int64]
    side: NDArray[np.int8]
    entry_index: NDArray[np.int64]
    entry_price: NDArray[np.float64]
    exit_index: NDArray[np.int64]
    exit_price: NDArray[np.float64]
    reason: NDArray[np.int8]
    entry_fees: NDArray[np.float64]
    fees: NDArray[np.float64]
    pnl: NDArray[np.float64]
    score: NDArray[np.float64]
    skipped_while_in_position: int = 0
    unfilled: int = 0
    open_at_end: OpenPosition | None = None

    def __len__(self) -> int:
        return len(self.order_id)
