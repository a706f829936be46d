"""Answers that arrive between quotes: a recording with a moment of the clock for each of them.

Shape letters: P quotes, N orders.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.signals import Signals
from trademl.market.quotes import QuoteFlag, Quotes


def delayed(
    quotes: Quotes, signals: Signals, latency_ns_N: NDArray[np.int64]
) -> tuple[Quotes, Signals]:
    """Return the signals decided when their answers arrived, in that order.

    A moment at which no quote came is added to the recording as one of a closed market: it fills
    and triggers nothing, and repeats the prices before it. So a fill depends on the very
    nanosecond of an answer, by the one fill model.
    """
    at_N = signals.orders.quote_index
    late = np.flatnonzero(latency_ns_N > 0)
    late = late[np.argsort((quotes.ts_event[at_N] + latency_ns_N)[late], kind="stable")]
    moment = quotes.ts_event[at_N[late]] + latency_ns_N[late]
    where = np.searchsorted(quotes.ts_event, moment, side="left")  # before a quote of that moment
    index_N = at_N + np.searchsorted(where, at_N, side="right")
    index_N[late] = where + np.arange(len(late))
    by_time = np.argsort(index_N, kind="stable")
    orders = replace(signals.orders, quote_index=index_N)
    return _with_moments(quotes, where, moment), replace(signals, orders=orders).take(by_time)


def _with_moments(quotes: Quotes, where: NDArray[np.int64], moment: NDArray[np.int64]) -> Quotes:
    columns: dict[str, Any] = {}
    for field in fields(Quotes):
        column = getattr(quotes, field.name)
        if isinstance(column, np.ndarray):
            columns[field.name] = np.insert(column, where, column[where - 1])
    added = where + np.arange(len(where))
    columns["ts_event"][added] = moment
    columns["flags"][added] |= np.uint8(QuoteFlag.CLOSED)
    return replace(quotes, **columns)
