"""When a market is open: quotes from outside its sessions fill nothing.

Shape letters: P quotes, S sessions.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.quotes import TRADEABLE, QuoteFlag, Quotes

CLOSED = "CLOSED"


def is_in_session(
    ts_P: NDArray[np.int64], open_ns_S: NDArray[np.int64], close_ns_S: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Say which times lie in a session, its opening included and its close not.

    Parameters
    ----------
    open_ns_S, close_ns_S : ndarray of int64
        UTC nanoseconds; sessions follow each other without overlap.

    Examples
    --------
    >>> is_in_session(np.array([1, 5, 9]), np.array([5]), np.array([9]))
    array([False,  True, False])
    """
    latest = np.searchsorted(open_ns_S, ts_P, side="right") - 1
    inside: NDArray[np.bool_] = (latest >= 0) & (ts_P < np.append(close_ns_S, 0)[latest])
    return inside


def close_outside(
    quotes: Quotes, open_ns_S: NDArray[np.int64], close_ns_S: NDArray[np.int64]
) -> Quotes:
    """Return the quotes with those outside every session marked as of a closed market.

    Raises
    ------
    DataError
        If no quote lies within a session.
    """
    is_open = is_in_session(quotes.ts_event, open_ns_S, close_ns_S)
    if not is_open.any():
        raise DataError("no quote lies within a session of its calendar: check calendar and times")
    state = np.full(len(quotes), None, object)
    if quotes.market_state is not None:
        state = quotes.market_state.copy()
    elsewhere = ~is_open & np.array([word in (None, TRADEABLE) for word in state], bool)
    state[elsewhere] = CLOSED
    flags = quotes.flags | (~is_open * np.uint8(QuoteFlag.CLOSED))
    return replace(quotes, flags=flags, market_state=state)
