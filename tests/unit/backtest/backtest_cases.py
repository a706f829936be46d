"""Recordings and signals written by hand, for the tests of the backtest."""

from __future__ import annotations

import numpy as np

from trademl.backtest.signals import Signals
from trademl.market.orders import Orders
from trademl.market.quotes import NS_PER_S, Quotes, flag_quotes

START_NS = 1_700_000_000 * NS_PER_S
BUY, SELL = 1, -1
FAR = 1_000.0  # a barrier that nothing reaches
LONG_S = 86_400


def quotes_of(*rows: tuple[float, float], at_s: list[float] | None = None) -> Quotes:
    """Return quotes of (bid, ask), one a second unless ``at_s`` says when."""
    bid, ask = np.array(rows, float).reshape(-1, 2).T.copy()
    seconds = np.arange(len(bid)) if at_s is None else np.array(at_s)
    ts_event = START_NS + np.round(seconds * NS_PER_S).astype(np.int64)
    mid = (bid + ask) / 2
    return Quotes(ts_event, bid, ask, mid, mid, mid, flag_quotes(bid, ask))


def bids(*prices: float, spread: float = 0.25, at_s: list[float] | None = None) -> Quotes:
    """Return quotes with these bids and a constant spread."""
    return quotes_of(*((bid, bid + spread) for bid in prices), at_s=at_s)


def signal(
    quote_index: int,
    side: int = BUY,
    take_profit: float = FAR,
    stop_loss: float = FAR,
    time_limit_s: float = LONG_S,
    score: float = 0.5,
) -> tuple[float, ...]:
    """Return one row for `signals_of`."""
    return quote_index, side, take_profit, stop_loss, time_limit_s, score


def signals_of(*rows: tuple[float, ...]) -> Signals:
    """Return signals whose order ids are 10, 11, 12 ..."""
    at, side, take_profit, stop_loss, limit_s, score = np.array(rows, float).reshape(-1, 6).T.copy()
    orders = Orders(
        at.astype(np.int64),
        side.astype(np.int8),
        take_profit,
        stop_loss,
        (limit_s * NS_PER_S).astype(np.int64),
    )
    return Signals(orders, np.arange(10, 10 + len(orders)), score)
