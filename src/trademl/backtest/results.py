"""A backtest's result as rows of the ledger, and as a table for people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trademl.backtest.run import BacktestResult
from trademl.backtest.trades import Trades
from trademl.market.orders import ExitReason, Side
from trademl.market.quotes import Quotes

Row = dict[str, Any]


def ledger_rows(result: BacktestResult, quotes: Quotes) -> tuple[list[Row], list[Row]]:
    """Return the rows of the ledger's tables ``trades`` and ``equity``, without the backtest's id.

    Parameters
    ----------
    quotes : Quotes
        The recording that was traded.
    """
    trades, points = _trade_columns(result, quotes), _equity_columns(result)
    return _rows(trades), _rows(points)


def trades_table(result: BacktestResult, quotes: Quotes) -> pd.DataFrame:
    """Return one line per trade, its times as UTC timestamps.

    Parameters
    ----------
    quotes : Quotes
        The recording that was traded.
    """
    table = pd.DataFrame(_trade_columns(result, quotes)).set_index("number")
    for name in ("opened_at", "closed_at"):
        column = f"{name}_ns"
        table[column] = pd.to_datetime(table[column], unit="ns", utc=True)
        table = table.rename(columns={column: name})
    return table


def _trade_columns(result: BacktestResult, quotes: Quotes) -> dict[str, Any]:
    trades = result.trades
    return {
        "number": np.arange(len(trades)),
        "order_id": trades.order_id,
        "side": np.array([Side(side).name.lower() for side in trades.side], object),
        "opened_at_ns": quotes.ts_event[trades.entry_index],
        "entry_price": trades.entry_price,
        "closed_at_ns": quotes.ts_event[trades.exit_index],
        "exit_price": trades.exit_price,
        "exit_reason": np.array([ExitReason(why).name.lower() for why in trades.reason], object),
        "fees": trades.fees,
        "pnl": trades.pnl,
        "score": _or_none(trades.score),
        "decided_at_ns": _decided_at(trades, quotes),
        "size": trades.size,
        "gross_points": (trades.exit_price - trades.entry_price) * trades.side * trades.size,
        "carry": trades.carry,
        "tier": np.full(len(trades), None, object),
        "latency_ms": np.full(len(trades), None, object),
    }


def _or_none(score: NDArray[np.float64]) -> NDArray[np.object_]:
    """Return scores as objects, None where there is none: SQL has no NaN."""
    values = score.astype(object)
    values[np.isnan(score)] = None
    return values


def _decided_at(trades: Trades, quotes: Quotes) -> NDArray[Any]:
    if trades.decided_index is None:
        return np.full(len(trades), None, object)
    return quotes.ts_event[trades.decided_index]


def _equity_columns(result: BacktestResult) -> dict[str, Any]:
    return {"ts_event_ns": result.equity_ts_ns, "equity": result.equity}


def _rows(columns: dict[str, Any]) -> list[Row]:
    """Return plain Python values, which every database driver takes."""
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]
