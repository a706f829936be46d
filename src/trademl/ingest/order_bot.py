"""The order bot: mock orders placed on ticks, a pure function of the ticks that were recorded.

Nothing of the bot needs to be kept: after a crash the same ticks give the same orders.

Shape letters: P quotes, N orders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.orders import Orders, Side
from trademl.market.quotes import NS_PER_S, Quotes, QuoteTick
from trademl.market.seconds import SecondGrid, second_grid, volatility_per_second

VOLATILITY_MAX_GAP_S = 60
MAX_DURATION_S = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class OrderBotConfig:
    """How often mock orders are placed, and their barriers.

    Parameters
    ----------
    interval_s : float
        One order on the first executable tick at or after each multiple of this.
    side : str
        ``buy`` or ``sell``.
    take_profit, stop_loss : float
        Barrier distances from the entry price, in ``barrier_unit``.
    barrier_unit : str
        ``price``: quote currency. ``volatility``: multiples of the move that the last
        ``volatility_window_s`` seconds lead one to expect over the time limit (root mean square
        of one-second mid changes, times the square root of the limit).
    min_spreads : float
        With ``volatility``, no barrier is below this many spreads at entry.
    time_limit_s : float
        Longest life of a position.
    export_after : int
        Completed orders that make a batch.
    lookback_s : int
        Seconds of prices exported before the first decision of a batch.
    """

    interval_s: float = 10.0
    side: Literal["buy", "sell"] = "buy"
    take_profit: float = 1.0
    stop_loss: float = 1.0
    barrier_unit: Literal["price", "volatility"] = "volatility"
    volatility_window_s: int = 600
    min_spreads: float = 2.0
    time_limit_s: float = 600.0
    export_after: int = 10_000
    lookback_s: int = 600

    def __post_init__(self) -> None:
        for name in ("interval_s", "take_profit", "stop_loss", "time_limit_s", "export_after"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} is {value}, expected more than 0")
        if max(self.interval_s, self.time_limit_s) > MAX_DURATION_S:
            raise ValueError(
                f"interval_s is {self.interval_s:g} and time_limit_s {self.time_limit_s:g}, "
                f"expected at most {MAX_DURATION_S:g} (a year)"
            )
        if self.volatility_window_s < 2 or self.lookback_s < 0:
            raise ValueError(
                "volatility_window_s must be 2 or more and lookback_s 0 or more; found "
                f"{self.volatility_window_s} and {self.lookback_s}"
            )

    @property
    def time_limit_ns(self) -> int:
        """The time limit in nanoseconds."""
        return round(self.time_limit_s * NS_PER_S)


def place_orders(quotes: Quotes, config: OrderBotConfig) -> Orders:
    """Return the bot's orders on a recording.

    Returns
    -------
    Orders
        At most one order an interval; none where no executable tick came in it, or, with
        barriers in volatility, where the window before the tick has gaps.

    Raises
    ------
    DataError
        If the spread is as wide as a barrier, so that a stop would trip at once and no take
        profit could pay for its entry.

    Notes
    -----
    Causal: an order reads its own tick and, for volatility, the seconds before it.
    """
    index_N = _first_tick_of_each_interval(quotes, config.interval_s)
    take_profit, stop_loss = _barriers(quotes, index_N, config, lambda: second_grid(quotes))
    has_barrier = ~np.isnan(take_profit)
    n = len(index_N)
    orders = Orders(
        index_N,
        np.full(n, Side[config.side.upper()], np.int8),
        take_profit,
        stop_loss,
        np.full(n, config.time_limit_ns, np.int64),
    ).take(has_barrier)
    if len(orders) == 0:
        raise DataError(
            "the order bot placed no order: no executable tick has "
            f"{config.volatility_window_s} s of history without a gap above "
            f"{VOLATILITY_MAX_GAP_S} s; the recording is too short or too sparse"
        )
    _refuse_barriers_below_spread(quotes, orders)
    return orders


def _first_tick_of_each_interval(quotes: Quotes, interval_s: float) -> NDArray[np.int64]:
    executable = np.flatnonzero(quotes.is_executable)
    slot = quotes.ts_event[executable] // round(interval_s * NS_PER_S)
    is_first = np.diff(slot, prepend=slot[:1] - 1) > 0
    first: NDArray[np.int64] = executable[is_first]
    return first


class LiveOrderBot:
    """The orders of `place_orders` as the quotes come."""

    def __init__(self, config: OrderBotConfig) -> None:
        self._config = config
        self._interval_ns = round(config.interval_s * NS_PER_S)
        self._slot = -1

    @property
    def least_s(self) -> int:
        """Seconds of history that `barriers` reads."""
        return self._config.volatility_window_s if self._config.barrier_unit != "price" else 1

    def is_due(self, tick: QuoteTick) -> bool:
        """Say whether the next quote is one to decide on: the first executable of an interval."""
        if tick.flags != 0:
            return False
        before, self._slot = self._slot, tick.ts_event // self._interval_ns
        return self._slot > before

    def barriers(self, tick: QuoteTick, grid: SecondGrid) -> tuple[float, float]:
        """Return take profit and stop loss of an order on a quote; NaN where none is placed.

        Parameters
        ----------
        grid : SecondGrid
            At least ``least_s`` seconds before the quote's.
        """
        take_profit, stop_loss = _barriers(
            tick.as_quotes(), np.zeros(1, np.int64), self._config, lambda: grid
        )
        return float(take_profit[0]), float(stop_loss[0])


def _barriers(
    quotes: Quotes,
    index_N: NDArray[np.int64],
    config: OrderBotConfig,
    grid_of: Callable[[], SecondGrid],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if config.barrier_unit == "price":
        ones = np.ones(len(index_N))
        return config.take_profit * ones, config.stop_loss * ones
    grid = grid_of()
    sigma = volatility_per_second(
        grid,
        grid.cell(quotes.ts_event[index_N]),
        window_s=config.volatility_window_s,
        max_gap_s=VOLATILITY_MAX_GAP_S,
    )
    expected_move = sigma * np.sqrt(config.time_limit_s)
    floor = config.min_spreads * quotes.spread[index_N]
    return (
        np.maximum(config.take_profit * expected_move, floor),
        np.maximum(config.stop_loss * expected_move, floor),
    )


def _refuse_barriers_below_spread(quotes: Quotes, orders: Orders) -> None:
    spread = float(np.median(quotes.spread[orders.quote_index]))
    for name in ("take_profit", "stop_loss"):
        barrier = float(np.median(getattr(orders, name)))
        if barrier <= spread:
            raise DataError(
                f"{name} is {barrier:g} and the median spread is {spread:g}: no order could earn "
                f"what it pays to enter; set orders.{name} well above {spread:g}"
            )
