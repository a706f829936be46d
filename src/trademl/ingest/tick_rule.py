"""Quotes from trade prints, by the tick rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def quotes_from_prints(
    price: NDArray[np.float64], tick_size: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bid and ask that each print implies.

    A print above the last different price (an uptick, or a zero-uptick) traded at the ask, one
    below it at the bid; the other side is one tick away. Taking the print as the mid would turn
    the bounce between bid and ask into false alpha. Prints before the first change count as
    traded at the ask.

    Parameters
    ----------
    price : ndarray of float64, shape (P,)
        Prices of the prints, in order.
    tick_size : float
        Smallest price step, in quote currency.

    Notes
    -----
    Causal: each quote reads prints up to its own. Source: Lee and Ready (1991), section II.

    Examples
    --------
    >>> quotes_from_prints(np.array([10.0, 10.25, 10.25, 10.0]), 0.25)
    (array([ 9.75, 10.  , 10.  , 10.  ]), array([10.  , 10.25, 10.25, 10.25]))
    """
    change = np.diff(price, prepend=price[:1])
    last_change = np.maximum.accumulate(np.where(change != 0, np.arange(len(price)), 0))
    is_ask = change[last_change] >= 0
    bid = np.where(is_ask, price - tick_size, price)
    return bid, bid + tick_size
