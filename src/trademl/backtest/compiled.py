"""The compiled engine: one position of one unit at a time, settled by the one fill model.

Policy
------
* A signal is taken if nothing is open or waiting for a fill at its decision quote, else skipped.
  Of several signals on one quote the first is taken.
* Exits come before decisions: a position that ends on quote k leaves quote k free for a signal
  that is decided on it. An entry is never closed on its own quote, so no quote holds two entries.
* An entry that is in flight, or decided on a flagged quote, waits for the first executable quote
  from then on, and is never withdrawn.
* What is still open when the recording ends is reported and is no trade.

Shape letters: P quotes, S signals.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trademl.backtest.signals import Signals, check_signals
from trademl.backtest.trades import OpenPosition, Trades
from trademl.market.costs import Costs
from trademl.market.fills import round_trip_fees, settle_one
from trademl.market.orders import ExitReason
from trademl.market.quotes import Quotes

CENSORED = int(ExitReason.CENSORED)


# Not cached on disk: numba keys a cache by this file alone, and would keep an old fill model.
@njit(nogil=True)
def _settle_in_turn(
    ts_event: NDArray[np.int64],
    bid: NDArray[np.float64],
    ask: NDArray[np.float64],
    flags: NDArray[np.uint8],
    decided_at: NDArray[np.int64],
    side: NDArray[np.int8],
    take_profit: NDArray[np.float64],
    stop_loss: NDArray[np.float64],
    time_limit_ns: NDArray[np.int64],
    slippage: float,
    latency_ns: int,
    take_profit_is_market: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int8]]:
    """Return the rows taken, their entry and exit quotes and prices, shape (taken, 2), and why."""
    n_signals = len(decided_at)
    rows, reason = np.empty(n_signals, np.int64), np.empty(n_signals, np.int8)
    index, price = np.empty((n_signals, 2), np.int64), np.empty((n_signals, 2))
    n_taken, free_from = 0, 0
    for s in range(n_signals):
        if decided_at[s] < free_from:
            continue
        n = n_taken
        rows[n] = s
        index[n, 0], price[n, 0], index[n, 1], price[n, 1], reason[n] = settle_one(
            ts_event,
            bid,
            ask,
            flags,
            decided_at[s],
            side[s],
            take_profit[s],
            stop_loss[s],
            time_limit_ns[s],
            slippage,
            latency_ns,
            take_profit_is_market,
        )
        free_from = index[n, 1] if reason[n] != CENSORED else len(bid)
        n_taken += 1
    return rows[:n_taken], index[:n_taken], price[:n_taken], reason[:n_taken]


def run_compiled(quotes: Quotes, signals: Signals, costs: Costs) -> Trades:
    """Trade the signals, one position at a time, and return the trades.

    Parameters
    ----------
    quotes : Quotes
        The recording, P quotes.
    signals : Signals
        S entries that the model wants, in the order of their decisions.
    costs : Costs
        Fees of both sides, slippage and latency of market fills.

    Raises
    ------
    DataError
        If the signals cannot be traded on the recording.

    Notes
    -----
    Causal: a trade reads quotes from its decision to its exit and none after.
    """
    check_signals(quotes, signals)
    orders = signals.orders
    rows, index, price, reason = _settle_in_turn(
        quotes.ts_event,
        quotes.bid,
        quotes.ask,
        quotes.flags,
        orders.quote_index,
        orders.side,
        orders.take_profit,
        orders.stop_loss,
        orders.time_limit_ns,
        costs.slippage,
        costs.latency_ns,
        costs.take_profit_is_market,
    )
    closed = reason != CENSORED
    (entry, exit_price), traded = price[closed].T, rows[closed]
    side, fees = orders.side[traded], round_trip_fees(entry, exit_price, costs)
    return Trades(
        order_id=signals.order_id[traded],
        side=side,
        entry_index=index[closed, 0],
        entry_price=entry,
        exit_index=index[closed, 1],
        exit_price=exit_price,
        reason=reason[closed],
        entry_fees=np.array([costs.fee(paid) for paid in entry]),
        fees=fees,
        pnl=(exit_price - entry) * side - fees,
        score=signals.score[traded],
        skipped_while_in_position=len(signals) - len(rows),
        unfilled=int((index[:, 0] < 0).sum()),
        open_at_end=_open_at_end(signals, rows, index, price, costs),
    )


def _open_at_end(
    signals: Signals,
    rows: NDArray[np.int64],
    index: NDArray[np.int64],
    price: NDArray[np.float64],
    costs: Costs,
) -> OpenPosition | None:
    if not len(rows) or index[-1, 0] < 0 or index[-1, 1] >= 0:
        return None
    row, paid = rows[-1], float(price[-1, 0])
    return OpenPosition(
        order_id=int(signals.order_id[row]),
        side=int(signals.orders.side[row]),
        entry_index=int(index[-1, 0]),
        entry_price=paid,
        entry_fee=costs.fee(paid),
        score=float(signals.score[row]),
    )
