"""European options by Black and Scholes (1973), with Merton's continuous dividend yield (1973)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from trademl.errors import DataError

Right = Literal["call", "put"]
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Option:
    """An option and the market that it is priced in.

    Parameters
    ----------
    right : {"call", "put"}
    spot, strike : float
        Price of the underlying and price at which it may be bought or sold, above 0, in quote
        currency per unit of the underlying.
    years : float
        Until expiry, above 0; a year has 365 days.
    volatility : float
        Implied, a year, as a fraction, above 0.
    rate, dividend_yield : float
        Continuously compounded, a year, as fractions.

    Raises
    ------
    DataError
        If there is no such option.

    Examples
    --------
    >>> put = Option("put", spot=42.0, strike=40.0, years=0.5, volatility=0.2, rate=0.1)
    >>> round(put.price, 2)  # Hull, Options, Futures, and Other Derivatives
    0.81
    """

    right: Right
    spot: float
    strike: float
    years: float
    volatility: float
    rate: float = 0.0
    dividend_yield: float = 0.0

    def __post_init__(self) -> None:
        if self.right not in ("call", "put"):
            raise DataError(f"right is {self.right!r}: expected call or put")
        for name in ("spot", "strike", "years", "volatility"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"the option's {name} is {value}: expected a number above 0")
        for name in ("rate", "dividend_yield"):
            if not math.isfinite(value := getattr(self, name)):
                raise DataError(f"the option's {name} is {value}: expected a number")

    @property
    def price(self) -> float:
        """Premium per unit of the underlying, in quote currency, 0 or more."""
        sign = 1.0 if self.right == "call" else -1.0
        d1, d2 = self._d()
        owned = self.spot * math.exp(-self.dividend_yield * self.years) * _NORMAL.cdf(sign * d1)
        paid = self.strike * math.exp(-self.rate * self.years) * _NORMAL.cdf(sign * d2)
        return max(sign * (owned - paid), 0.0)

    @property
    def delta(self) -> float:
        """Change of the price with the spot's: 0 to 1 for a call, -1 to 0 for a put."""
        kept = math.exp(-self.dividend_yield * self.years)
        return kept * (_NORMAL.cdf(self._d()[0]) - (0.0 if self.right == "call" else 1.0))

    def _d(self) -> tuple[float, float]:
        spread = self.volatility * math.sqrt(self.years)
        carry = (self.rate - self.dividend_yield + self.volatility**2 / 2) * self.years
        d1 = (math.log(self.spot / self.strike) + carry) / spread
        return d1, d1 - spread
