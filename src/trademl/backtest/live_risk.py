"""The section ``[backtest]`` in live trading: the same sizes and limits, as they happen."""

from __future__ import annotations

import numpy as np

from trademl.backtest.limits import GO, REJECTED, account_for, may_enter, new_account
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.signals import Signals
from trademl.backtest.sizing import sized
from trademl.errors import ConfigError
from trademl.market.costs import Costs
from trademl.market.orders import Orders, Side
from trademl.market.quotes import QuoteTick


class AccountRisk:
    """An account that has not traded yet.

    Raises
    ------
    ConfigError
        If sizes are to follow volatility, which is not kept up live.
    """

    def __init__(self, config: BacktestConfig, costs: Costs, side: Side, *, seed: int) -> None:
        if config.sizing == "volatility":
            raise ConfigError(
                "backtest.sizing is volatility, which live trading does not keep up: choose fixed "
                "or kelly"
            )
        self._config, self._costs, self._side = config, costs, side
        self._limits, self._account = config.limits(seed).numbers, new_account()

    def units(self, tick: QuoteTick, barriers: tuple[float, float], score: float) -> float:
        """Return the units to trade; 0 for none."""
        if self._config.sizing == "fixed":
            return min(self._config.units, self._limits.max_units)
        first = np.zeros(1, np.int64)
        take_profit, stop_loss = (np.array([barrier]) for barrier in barriers)
        side = np.array([self._side], np.int8)
        orders = Orders(first, side, take_profit, stop_loss, first)
        signals = Signals(orders, first, np.array([score]))
        found = sized(tick.as_quotes(), signals, self._costs, self._config).units
        return min(float(found[0]), self._limits.max_units) if len(found) else 0.0

    def refusal(self, decided_ns: int) -> str:
        """Return ``rejected`` or ``halted`` for an entry that is not made, else nothing."""
        answer = may_enter(self._limits, self._account, decided_ns)
        return "" if answer == GO else "rejected" if answer == REJECTED else "halted"

    def account_for(self, left_ns: int, pnl: float) -> None:
        """Count the profit of a position that ended."""
        account_for(self._account, left_ns, pnl)
