"""How many units to trade: fixed, by volatility, or a fraction of Kelly's bet.

Shape letter: S signals.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trademl.backtest.settings import BacktestConfig
from trademl.backtest.signals import Signals
from trademl.errors import DataError
from trademl.market.costs import Costs
from trademl.market.friction import volatility
from trademl.market.quotes import Quotes

SECONDS_PER_YEAR = 365.25 * 86_400


def sized(quotes: Quotes, signals: Signals, costs: Costs, config: BacktestConfig) -> Signals:
    """Return the signals with their sizes; those that deserve none are left out.

    Raises
    ------
    DataError
        If Kelly's bet is asked for with scores that are no probabilities.

    Notes
    -----
    Causal: a size reads its signal and quotes up to the minute before its decision.
    """
    units_S = _units(quotes, signals, costs, config)
    return replace(signals, size=units_S).take(units_S > 0)


def _units(
    quotes: Quotes, signals: Signals, costs: Costs, config: BacktestConfig
) -> NDArray[np.float64]:
    if config.sizing == "fixed":
        return np.full(len(signals), config.units)
    if config.sizing == "volatility":
        return volatility_units(quotes, signals, costs, config)
    return kelly_units(quotes, signals, costs, config)


def volatility_units(
    quotes: Quotes, signals: Signals, costs: Costs, config: BacktestConfig
) -> NDArray[np.float64]:
    """Return units whose value moves by the target a year; 0 where volatility is not known yet."""
    sigma = quotes.volatility if quotes.volatility is not None else volatility(quotes)
    sigma_S = sigma[signals.orders.quote_index] * np.sqrt(SECONDS_PER_YEAR) * costs.multiplier
    money = config.capital * config.target_volatility_pct / 100
    return np.asarray(np.divide(money, sigma_S, out=np.zeros(len(signals)), where=sigma_S > 0))


def kelly_units(
    quotes: Quotes, signals: Signals, costs: Costs, config: BacktestConfig
) -> NDArray[np.float64]:
    """Return units whose loss at the stop is the wanted fraction of Kelly's bet.

    For a bet that wins ``b`` for each unit risked with probability ``p``, Kelly (1956) stakes
    ``p - (1 - p) / b`` of the capital.
    """
    p_S, orders = signals.score, signals.orders
    if not ((p_S >= 0) & (p_S <= 1)).all():
        row = int(np.flatnonzero(~((p_S >= 0) & (p_S <= 1)))[0])
        raise DataError(
            f"signal {row} has a score of {p_S[row]}: Kelly's bet needs probabilities from 0 to 1"
        )
    spread_S = quotes.spread[orders.quote_index]
    won = np.maximum(orders.take_profit - spread_S, 0.0)  # what is left after the spread
    odds_S = won / (orders.stop_loss + spread_S)
    share_S = p_S - np.divide(1 - p_S, odds_S, out=np.full(len(p_S), np.inf), where=odds_S > 0)
    stake = np.maximum(share_S, 0.0) * config.kelly_fraction * config.capital
    return np.asarray(stake / (orders.stop_loss * costs.multiplier))
