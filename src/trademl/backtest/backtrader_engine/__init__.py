"""The backtrader engine: the same fills for strategies that a user writes, and all its quirks.

This folder alone imports backtrader. What it fences off:

* backtrader keeps times as fractional days, about 10 us apart, and its own brokers fill a market
  order only on a later *time*. Here a quote is known by its index, and times are read from the
  recording's integers; quotes of equal time keep file order.
* Its brokers fill on bars. `QuoteBroker` fills on quotes, through `trademl.market.fills`.
* On each quote the broker looks at resting orders first and the strategy decides after. A market
  order fills on the quote of its decision if that is executable and there is no latency, else on
  the first that is from its arrival on; limit and stop orders are looked at from the next quote on.
* backtrader calls a strategy on quotes alone. What a strategy decides by the clock it sends on a
  later quote with ``decided_at_ns``, the time at which it was decided.
* ``order.created.price`` replaces a price of 0 by the close; the broker reads ``order.p.price``.
* Indicators see the mid as open, high, low and close; NaN on a one-sided quote.
"""

from __future__ import annotations

from trademl.backtest.backtrader_engine.broker import CostsCommission, QuoteBroker
from trademl.backtest.backtrader_engine.engine import run_backtrader, run_strategy
from trademl.backtest.backtrader_engine.feed import QuoteFeed
from trademl.backtest.backtrader_engine.strategies import BarrierStrategy

__all__ = [
    "BarrierStrategy",
    "CostsCommission",
    "QuoteBroker",
    "QuoteFeed",
    "run_backtrader",
    "run_strategy",
]
