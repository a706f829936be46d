"""The candidate entries that a backtest may take, each with a model's score.

Shape letter: S signals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.fills import check_orders
from trademl.market.orders import Orders
from trademl.market.quotes import Quotes


@dataclass(frozen=True, slots=True)
class Signals:
    """One candidate entry per row, in the order in which they are decided; arrays of shape (S,).

    Parameters
    ----------
    orders : Orders
        Where, on which side and with which barriers each entry would be made.
        `Orders.quote_index` points into the recording that is traded.
    order_id : ndarray of int64
        Identity of each order in its batch.
    score : ndarray of float64
        What the model answered, known at the order's decision quote; higher is better.
    size : ndarray of float64, optional
        Units wanted, above 0; one each where left out.
    known_ns : ndarray of int64, optional
        Time of the newest thing that each score was made from, UTC nanoseconds.
    threshold : ndarray of float64, optional
        Score from which each is taken, where several models took turns; infinite for none.
    """

    orders: Orders
    order_id: NDArray[np.int64]
    score: NDArray[np.float64]
    size: NDArray[np.float64] | None = None
    known_ns: NDArray[np.int64] | None = None
    threshold: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.orders)

    @property
    def units(self) -> NDArray[np.float64]:
        """Units wanted by each signal."""
        return np.ones(len(self)) if self.size is None else self.size

    def flagged(self, threshold: float) -> Signals:
        """Return the signals whose score reaches ``threshold``, or its own; NaN never does."""
        return self.take(self.score >= (threshold if self.threshold is None else self.threshold))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Signals:
        """Return the chosen signals."""
        size = None if self.size is None else self.size[rows]
        known_ns = None if self.known_ns is None else self.known_ns[rows]
        threshold = None if self.threshold is None else self.threshold[rows]
        orders, order_id, score = self.orders.take(rows), self.order_id[rows], self.score[rows]
        return Signals(orders, order_id, score, size, known_ns, threshold)


def check_signals(quotes: Quotes, signals: Signals) -> None:
    """Check that the signals can be traded on the recording.

    Raises
    ------
    DataError
        If the columns differ in length, a decision comes before the one above it or lies
        outside the recording, reads what was not known yet, or a barrier or a size is not positive.
    """
    n_ids, n_scores = len(signals.order_id), len(signals.score)
    if not n_ids == n_scores == len(signals):
        raise DataError(
            f"signals have {len(signals)} orders, {n_ids} order ids and {n_scores} scores, "
            "expected as many of each"
        )
    check_orders(len(quotes), signals.orders)
    decided_at = signals.orders.quote_index
    if (earlier := np.diff(decided_at) < 0).any():
        row = int(np.flatnonzero(earlier)[0]) + 1
        raise DataError(
            f"signal {row} is decided on quote {decided_at[row]}, before the signal above it "
            f"on quote {decided_at[row - 1]}: sort signals by quote_index"
        )
    _refuse_the_future(quotes, signals)
    if signals.size is not None and not (signals.size > 0).all():
        row = int(np.flatnonzero(~(signals.size > 0))[0])
        raise DataError(f"signal {row} has a size of {signals.size[row]}, expected more than 0")


def _refuse_the_future(quotes: Quotes, signals: Signals) -> None:
    if signals.known_ns is None:
        return
    decided_ns = quotes.ts_event[signals.orders.quote_index]
    if (late := signals.known_ns > decided_ns).any():
        row = int(np.flatnonzero(late)[0])
        raise DataError(
            f"signal {row} (order {signals.order_id[row]}) comes from the future: it is decided at "
            f"{decided_ns[row]} ns and reads what was known at {signals.known_ns[row]} ns"
        )
