"""What trading costs beyond the recorded spread: fees, slippage, being late, holding overnight."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

NS_PER_MS = 1_000_000
MAY_BE_NEGATIVE = ("financing_long_pct", "financing_short_pct")


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of trading, by which labels and every engine fill.

    Parameters
    ----------
    fee_bps : float
        Fee of one side as basis points of the price filled, times the multiplier.
    fee_per_unit : float
        Fee of one side per unit traded, in quote currency.
    slippage : float
        Price units by which a market order (entry, stop, time exit) fills worse than the
        touch. A take profit is a resting limit and does not slip.
    latency_ms : float
        Time from the decision for a market order to its arrival at the market. A resting limit
        is there already.
    take_profit_is_market : bool
        The take profit does not rest: when it is reached, a market order is sent, which is late
        and slips like a stop.
    slippage_spreads : float
        Slippage as a share of the spread of the quote filled on, added to ``slippage``.
    slippage_volatility : float
        Slippage in multiples of the volatility of one second, see `trademl.market.friction`.
    impact : float
        Y of the square-root law: a market order of Q units slips by Y times the volatility of a
        day times sqrt(Q / ``daily_volume_units``) (Toth et al., 2011). Needs that volume.
    daily_volume_units : float
        Units that the market trades in a day, for ``impact``.
    quote_delay_ms : float
        Time from a quote to the moment at which the strategy sees it; what is decided on it is
        later by as much. The clock is not delayed.
    partial_fills : bool
        Where the recording shows sizes, no fill is larger than what its quote shows.
    spread_scale : float
        1 trades on the spread as recorded, 2 on one twice as wide, 0 at the mid.
    multiplier : float
        What one point of price is worth per unit, in quote currency.
    financing_long_pct, financing_short_pct : float
        Per cent a year of the position's value, paid for each night that a bought or a sold
        position is held (a CFD); negative where it is earned.
    rollover, rollover_timezone : str
        Local time ``HH:MM`` at which a night is counted.
    """

    fee_bps: float = 0.0
    fee_per_unit: float = 0.0
    slippage: float = 0.0
    latency_ms: float = 0.0
    take_profit_is_market: bool = False
    slippage_spreads: float = 0.0
    slippage_volatility: float = 0.0
    impact: float = 0.0
    daily_volume_units: float = 0.0
    quote_delay_ms: float = 0.0
    partial_fills: bool = True
    spread_scale: float = 1.0
    multiplier: float = 1.0
    financing_long_pct: float = 0.0
    financing_short_pct: float = 0.0
    rollover: str = "17:00"
    rollover_timezone: str = "America/New_York"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) or field.name in MAY_BE_NEGATIVE:
                continue
            if not value >= 0:
                raise ValueError(f"{field.name} is {value}, expected 0 or more")
        if not self.multiplier > 0:
            raise ValueError(f"multiplier is {self.multiplier}, expected more than 0")
        if self.impact > 0 and not self.daily_volume_units > 0:
            raise ValueError(
                f"impact is {self.impact} and daily_volume_units {self.daily_volume_units}: the "
                "square-root law needs the volume of a day"
            )

    @property
    def latency_ns(self) -> int:
        """The latency in nanoseconds."""
        return round(self.latency_ms * NS_PER_MS)

    @property
    def seen_ns(self) -> int:
        """Time from a quote to the arrival of an order that it brought about, in nanoseconds."""
        return round((self.quote_delay_ms + self.latency_ms) * NS_PER_MS)

    @property
    def needs_volatility(self) -> bool:
        """Whether slippage reads the volatility of the market."""
        return self.slippage_volatility > 0 or self.impact > 0

    def fee(self, price: float) -> float:
        """Return the fee of filling one unit at ``price``, in quote currency."""
        return self.fee_bps * 1e-4 * self.multiplier * price + self.fee_per_unit

    def times(self, factor: float) -> Costs:
        """Return costs with fees, slippage, spread and financing ``factor`` times as high."""
        scaled: dict[str, Any] = {
            name: factor * getattr(self, name)
            for name in (
                "fee_bps",
                "fee_per_unit",
                "slippage",
                "slippage_spreads",
                "slippage_volatility",
                "impact",
                "spread_scale",
                "financing_long_pct",
                "financing_short_pct",
            )
        }
        if self.spread_scale:  # the spread that it is a share of is wider already
            scaled["slippage_spreads"] = self.slippage_spreads
        return replace(self, **scaled)


def realistic_costs() -> Costs:
    """Return the costs of a strategy that names none: late, and worse than the touch; no fee."""
    return Costs(latency_ms=50.0, quote_delay_ms=50.0, slippage_spreads=0.1)
