"""What a fill costs beyond the spread: fees, slippage, and being late."""

from __future__ import annotations

from dataclasses import dataclass, fields

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of one fill (one side of a round trip).

    Parameters
    ----------
    fee_bps : float
        Fee as basis points of the price filled.
    fee_per_unit : float
        Fee per unit traded, in quote currency.
    slippage : float
        Price units by which a market order (entry, stop, time exit) fills worse than the
        touch. A take profit is a resting limit and does not slip.
    latency_ms : float
        Time from the decision for a market order to its arrival at the market. A resting limit
        is there already.
    take_profit_is_market : bool
        The take profit does not rest: when it is reached, a market order is sent, which is late
        and slips like a stop.
    """

    fee_bps: float = 0.0
    fee_per_unit: float = 0.0
    slippage: float = 0.0
    latency_ms: float = 0.0
    take_profit_is_market: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            if not (value := getattr(self, field.name)) >= 0:
                raise ValueError(f"{field.name} is {value}, expected 0 or more")

    @property
    def latency_ns(self) -> int:
        """The latency in nanoseconds."""
        return round(self.latency_ms * NS_PER_MS)

    def fee(self, price: float) -> float:
        """Return the fee of filling one unit at ``price``, in quote currency."""
        return self.fee_bps * 1e-4 * price + self.fee_per_unit
