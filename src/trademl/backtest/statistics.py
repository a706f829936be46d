"""What a backtest earned: the equity curve and the figures drawn from it.

Equity is profit and loss from 0, in quote currency. An open position is marked at the touch at
which it could be left, after its entry fee; what holding it costs counts when it is left.

Shape letters: P quotes, N trades, E points of the curve.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.trades import Fills, Trades
from trademl.errors import ConfigError
from trademl.market.costs import Costs
from trademl.market.orders import ExitReason
from trademl.market.quotes import NS_PER_S, Quotes

EXITS = (ExitReason.TAKE_PROFIT, ExitReason.STOP_LOSS, ExitReason.TIME, ExitReason.SIGNAL)
NO_COSTS = Costs()


def equity_on_quotes(
    quotes: Quotes, trades: Trades, costs: Costs = NO_COSTS
) -> NDArray[np.float64]:
    """Return the equity after each quote.

    Parameters
    ----------
    costs : Costs
        Of these, the multiplier, and the fees of positions that grow or shrink.

    Returns
    -------
    ndarray of shape (P,)
        Profit of the trades closed so far plus the mark of the open position.

    Notes
    -----
    Causal: value ``k`` reads quotes at or before ``k`` only. A flagged quote marks nothing; the
    last executable touch is carried forward.
    """
    if trades.fills is not None:
        return _equity_of_fills(quotes, trades, trades.fills, costs)
    equity = np.zeros(len(quotes))
    np.add.at(equity, trades.exit_index, trades.pnl)
    return np.asarray(np.cumsum(equity) + _open_mark(quotes, trades, costs.multiplier))


def _equity_of_fills(
    quotes: Quotes, trades: Trades, fills: Fills, costs: Costs
) -> NDArray[np.float64]:
    cash, held = np.zeros(len(quotes)), np.zeros(len(quotes))
    rate = costs.fee_bps * 1e-4 * costs.multiplier
    fees = np.abs(fills.units) * (rate * fills.price + costs.fee_per_unit)
    np.add.at(cash, fills.index, -fills.units * fills.price * costs.multiplier - fees)
    np.add.at(cash, trades.exit_index, trades.carry)
    np.add.at(held, fills.index, fills.units)
    held = np.cumsum(held)
    held[np.abs(held) < 1e-9 * np.abs(fills.units).max(initial=0.0)] = 0.0
    k = np.arange(len(quotes))
    seen = np.maximum.accumulate(np.where(quotes.is_executable, k, 0))
    touch = np.where(held > 0, quotes.bid[seen], quotes.ask[seen])
    worth = np.where(held == 0, 0.0, held * touch * costs.multiplier)
    return np.asarray(np.cumsum(cash) + worth)


def _open_mark(quotes: Quotes, trades: Trades, multiplier: float) -> NDArray[np.float64]:
    """Return what leaving at the touch would earn after the entry fee; 0 while flat."""
    entered, left, side, paid, fee, size = _positions(quotes, trades)
    k = np.arange(len(quotes))
    latest = np.searchsorted(entered, k, side="right") - 1  # the position last entered by quote k
    is_open = (latest >= 0) & (k < np.append(left, 0)[latest])
    n, mark = latest[is_open], np.zeros(len(quotes))
    seen = np.maximum.accumulate(np.where(quotes.is_executable, k, 0))[is_open]
    touch = np.where(side[n] > 0, quotes.bid[seen], quotes.ask[seen])
    mark[is_open] = (touch - paid[n]) * side[n] * size[n] * multiplier - fee[n]
    return mark


def _positions(quotes: Quotes, trades: Trades) -> tuple[NDArray[Any], ...]:
    """Return entry quote, exit quote, side, price, entry fee and size of every position."""
    columns: tuple[NDArray[Any], ...] = (
        trades.entry_index,
        trades.exit_index,
        trades.side,
        trades.entry_price,
        trades.entry_fees,
        trades.size,
    )
    if (still := trades.open_at_end) is None:
        return columns
    last: tuple[float, ...] = (
        still.entry_index,
        len(quotes),
        still.side,
        still.entry_price,
        still.entry_fee,
        still.size,
    )
    return tuple(np.append(column, value) for column, value in zip(columns, last, strict=True))


def equity_curve(
    quotes: Quotes, trades: Trades, every_s: float = 60, costs: Costs = NO_COSTS
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the equity on a grid of times, ending with the last quote.

    Parameters
    ----------
    every_s : float
        Step of the grid in seconds. A grid time before which no quote has come since the grid
        time before it is left out: a weekend adds no points.

    Returns
    -------
    ts_ns : ndarray of int64, shape (E,)
        UTC nanoseconds, strictly increasing.
    equity : ndarray of float64, shape (E,)
        Equity after the last quote at or before each time.

    Raises
    ------
    ConfigError
        If ``every_s`` is not above 0.
    """
    if not every_s > 0:
        raise ConfigError(f"the equity curve has a step of {every_s} s, expected more than 0")
    if not len(quotes):
        return np.empty(0, np.int64), np.empty(0)
    first, last = quotes.ts_event[0], quotes.ts_event[-1]
    ts_ns = np.append(np.arange(first, last, round(every_s * NS_PER_S)), last)
    seen = np.searchsorted(quotes.ts_event, ts_ns, side="right") - 1
    is_new = np.diff(seen, prepend=-1) > 0
    return ts_ns[is_new], equity_on_quotes(quotes, trades, costs)[seen[is_new]]


def performance(quotes: Quotes, trades: Trades, costs: Costs = NO_COSTS) -> dict[str, Any]:
    """Return the figures of a backtest, safe for JSON: None where one is undefined.

    Parameters
    ----------
    quotes : Quotes
        The span that was traded, P quotes.
    trades : Trades
        N trades.

    Returns
    -------
    dict
        Money in quote currency. ``gross_pnl`` is after spread and slippage and before fees and
        ``carry``. ``max_drawdown`` is the deepest fall of the equity below its peak, seen on every
        quote, and ``max_drawdown_s`` the longest time that it took to regain a peak or until
        the end. ``exposure`` is the share of the span spent in a position. ``open_pnl`` marks
        what the end left open, and is in no other figure but ``final_equity`` and the drawdown.
    """
    equity = equity_on_quotes(quotes, trades, costs)
    depth, length_s = _drawdown(quotes.ts_event, equity)
    net, fees = float(trades.pnl.sum()), float(trades.fees.sum())
    carry = float(trades.carry.sum())
    final = float(equity[-1]) if len(equity) else 0.0
    return {
        "n_trades": len(trades),
        "net_pnl": net,
        "gross_pnl": net + fees - carry,
        "fees": fees,
        "carry": carry,
        "average_trade": net / len(trades) if len(trades) else None,
        "hit_rate": float((trades.pnl > 0).mean()) if len(trades) else None,
        "profit_factor": _profit_factor(trades.pnl),
        "max_drawdown": depth,
        "max_drawdown_s": length_s,
        "exposure": _exposure(quotes, trades),
        "exits": {exit_.name.lower(): int((trades.reason == exit_).sum()) for exit_ in EXITS},
        "skipped_while_in_position": trades.skipped_while_in_position,
        "unfilled": trades.unfilled,
        "rejected": trades.rejected,
        "halted": trades.halted,
        "stopped": trades.stopped,
        "is_open_at_end": trades.open_at_end is not None,
        "open_pnl": final - net if trades.open_at_end else 0.0,
        "final_equity": final,
    }


def _profit_factor(pnl: NDArray[np.float64]) -> float | None:
    won, lost = float(pnl[pnl > 0].sum()), float(-pnl[pnl < 0].sum())
    return won / lost if lost else None


def _drawdown(ts_event: NDArray[np.int64], equity: NDArray[np.float64]) -> tuple[float, float]:
    """Return the deepest fall below a peak, and the longest time below one, in seconds."""
    if not len(equity):
        return 0.0, 0.0
    peak = np.maximum.accumulate(np.maximum(equity, 0.0))
    is_below = equity < peak
    k = np.arange(len(equity))
    at_peak = np.maximum.accumulate(np.where(is_below, 0, k))  # latest quote on a peak
    below_since = np.append(0, at_peak[:-1])  # as it stood before quote k
    waited = np.where(
        is_below | np.append(False, is_below[:-1]), ts_event - ts_event[below_since], 0
    )
    return float((peak - equity).max()), float(waited.max() / NS_PER_S)


def _exposure(quotes: Quotes, trades: Trades) -> float | None:
    span = int(quotes.ts_event[-1] - quotes.ts_event[0]) if len(quotes) else 0
    if not span:
        return None
    entered, left, *_ = _positions(quotes, trades)
    held = quotes.ts_event[np.minimum(left, len(quotes) - 1)] - quotes.ts_event[entered]
    return float(held.sum() / span)
