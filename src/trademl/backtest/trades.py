"""What an engine did: fills, round trips, and the wishes that became none.

Shape letters: N trades, F fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.market.carry import Carry, carried_each
from trademl.market.costs import Costs
from trademl.market.fills import round_trip_fees


@dataclass(frozen=True, slots=True)
class OpenPosition:
    """A position that the end of the recording left open: not a trade.

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
    size : float
        Units held.
    """

    order_id: int
    side: int
    entry_index: int
    entry_price: float
    entry_fee: float
    score: float
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class Fills:
    """Every fill in the order in which it happened; arrays of shape (F,).

    Parameters
    ----------
    index : ndarray of int64
        Quote of each fill, never decreasing.
    units : ndarray of float64
        Units bought, negative where sold.
    price : ndarray of float64
        Price filled, slippage included.
    """

    index: NDArray[np.int64]
    units: NDArray[np.float64]
    price: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True)
class Trades:
    """Round trips, one after the other; arrays of shape (N,).

    Every signal is a trade, or counted as skipped, unfilled, rejected, halted or open at the end.

    Parameters
    ----------
    order_id : ndarray of int64
        Identity of the order of each trade.
    side : ndarray of int8
        Values of `Side`.
    entry_index, exit_index : ndarray of int64
        Quotes of the fills; each exit is after its entry and not after the next entry.
    entry_price, exit_price : ndarray of float64
        Mean prices filled, slippage included, in quote currency.
    reason : ndarray of int8
        Values of `ExitReason`, never CENSORED.
    entry_fees : ndarray of float64
        The part of ``fees`` that is paid at the entry.
    fees, pnl : ndarray of float64
        Both fees, and profit after spread, slippage, fees and carry, in quote currency.
    score : ndarray of float64
        Score of each trade's signal.
    size : ndarray of float64
        Units entered.
    carry : ndarray of float64
        Financing, dividends and rolls while held; negative where paid. Part of ``pnl``.
    skipped_while_in_position : int
        Signals passed over because a position was open or an entry was waiting for a fill.
    unfilled : int
        Signals taken (0 or 1) whose entry found no executable quote before the recording ended.
    open_at_end : OpenPosition, optional
        What the end of the recording left open.
    rejected, halted : int
        Entries that the venue rejected, and that limits on risk forbade.
    fills : Fills, optional
        The fills, where trades do not follow from their own columns: a position that grew or
        shrank.
    stopped : str, optional
        Why trading ended before the recording did.
    decided_index : ndarray of int64, optional
        Quote on which each trade was decided.
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
    size: NDArray[np.float64]
    carry: NDArray[np.float64]
    skipped_while_in_position: int = 0
    unfilled: int = 0
    open_at_end: OpenPosition | None = None
    rejected: int = 0
    halted: int = 0
    fills: Fills | None = None
    stopped: str | None = None
    decided_index: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.order_id)


@dataclass(frozen=True, slots=True)
class Trips:
    """Positions as an engine carried them, the last perhaps still open; arrays of shape (N,).

    ``index_N2`` and ``price_N2`` hold entry and exit, -1 and NaN where the recording ended before.
    """

    order_id: NDArray[np.int64]
    side: NDArray[np.int8]
    index_N2: NDArray[np.int64]
    price_N2: NDArray[np.float64]
    reason: NDArray[np.int8]
    units: NDArray[np.float64]
    score: NDArray[np.float64]
    decided: NDArray[np.int64]

    def trades(
        self, ts_event: NDArray[np.int64], costs: Costs, carry: Carry, **counts: Any
    ) -> Trades:
        """Return what the trips earned; ``counts`` are fields of `Trades`."""
        closed = self.index_N2[:, 1] >= 0
        entered, left = np.ascontiguousarray(self.index_N2[closed].T)
        entry, exit_price = np.ascontiguousarray(self.price_N2[closed].T)
        side, units = self.side[closed], self.units[closed]
        fees = units * round_trip_fees(entry, exit_price, costs)
        held = units * carried_each(carry, side, ts_event[entered], ts_event[left])
        return Trades(
            order_id=self.order_id[closed],
            side=side,
            entry_index=entered,
            entry_price=entry,
            exit_index=left,
            exit_price=exit_price,
            reason=self.reason[closed],
            entry_fees=units
            * (costs.fee_bps * 1e-4 * costs.multiplier * entry + costs.fee_per_unit),
            fees=fees,
            pnl=(exit_price - entry) * side * units * costs.multiplier - fees + held,
            score=self.score[closed],
            size=units,
            carry=held,
            unfilled=int((self.index_N2[:, 0] < 0).sum()),
            open_at_end=self._open(costs),
            decided_index=self.decided[closed],
            **counts,
        )

    def _open(self, costs: Costs) -> OpenPosition | None:
        if not len(self.side) or self.index_N2[-1, 0] < 0 or self.index_N2[-1, 1] >= 0:
            return None
        paid, units = float(self.price_N2[-1, 0]), float(self.units[-1])
        return OpenPosition(
            order_id=int(self.order_id[-1]),
            side=int(self.side[-1]),
            entry_index=int(self.index_N2[-1, 0]),
            entry_price=paid,
            entry_fee=units * costs.fee(paid),
            score=float(self.score[-1]),
            size=units,
        )
