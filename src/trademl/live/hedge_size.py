"""How many options protect a position: the option to buy, and the contracts, from numbers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime

from trademl.errors import ConfigError, DataError
from trademl.market.options import Option

_NS = 10**9
_WORTHLESS = 1e-9  # of the ETF's currency
_YEAR_S = 365 * 86400
_POSITIVE = ("point_value", "multiplier", "strike_step", "max_age_days")
_IF_USED = ("budget", "beta", "implied_volatility")


@dataclass(frozen=True)
class HedgeConfig:
    """Section ``[hedge]`` of a strategy file: what to buy when the home region is gone.

    Parameters
    ----------
    home : str
        Region that holds the positions; empty: this strategy is not hedged.
    instrument : str
        What is held there.
    point_value : float
        What one unit gains when its price gains 1, in the ETF's currency: the contract's multiplier
        times the rate of exchange.
    etf : str
        The overseas fund whose options are bought.
    beta : float
        Return of the instrument for each unit of return of the ETF, above 0.
    implied_volatility : float
        Of the ETF's options, a year, as a fraction.
    as_of : str
        ISO date (UTC) on which beta and volatility were true.
    max_age_days : int
        They are refused when they are older.
    expiry : str
        ISO date (UTC, midnight at its end) of the options.
    strike_ratio, strike_step : float
        The strike is the spot times the ratio, rounded to the nearest step.
    multiplier : float
        Units of the ETF in one contract.
    budget : float
        Most to pay in premiums, in the ETF's currency.
    rate, dividend_yield : float
        Continuously compounded, a year.
    """

    home: str = ""
    instrument: str = ""
    point_value: float = 1.0
    etf: str = ""
    beta: float = 0.0
    implied_volatility: float = 0.0
    as_of: str = ""
    max_age_days: int = 7
    expiry: str = ""
    strike_ratio: float = 1.0
    strike_step: float = 1.0
    multiplier: float = 100.0
    budget: float = 0.0
    rate: float = 0.0
    dividend_yield: float = 0.0

    def __post_init__(self) -> None:
        for name in (*_POSITIVE, "strike_ratio", *(_IF_USED if self.home else ())):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}: expected a number above 0")
        if self.home:
            for name in ("instrument", "etf"):
                if not getattr(self, name):
                    raise ConfigError(f"{name} is empty: the region {self.home} needs it")
            for name in ("as_of", "expiry"):
                _day(name, getattr(self, name))


@dataclass(frozen=True)
class HedgePlan:
    """The options that would be bought, and why so many.

    Parameters
    ----------
    exposure : float
        Value of the position in the ETF's currency, below 0 for a short one.
    premium : float
        Of one contract, in the ETF's currency.
    contracts : int
        What protects the position within the budget, rounded down: never more than either bound.
    bound : str
        ``budget`` or ``exposure``: which of the two is the smaller.
    """

    option: Option
    instrument: str
    exposure: float
    premium: float
    by_budget: float
    by_exposure: float
    contracts: int
    bound: str


def plan_hedge(
    config: HedgeConfig, quantity: float, *, price: float, spot: float, now_ns: int
) -> HedgePlan | None:
    """Return the protection of a position: puts if it is long, calls if short, None if it is flat.

    Contracts are min(budget / premium, exposure x beta / (delta x spot x multiplier)), of absolute
    exposure and delta, rounded down to whole ones.

    Parameters
    ----------
    quantity : float
        Units held of the instrument, below 0 if short.
    price, spot : float
        Of the instrument and of the ETF, each in its currency, at ``now_ns`` at the latest.

    Raises
    ------
    ConfigError
        If beta and volatility are stale, of a day to come, or the options have expired.
    DataError
        If a price is no number above 0.
    """
    if not config.home:
        raise ConfigError("the strategy has no [hedge] with a home region: write one")
    check_fresh(config, now_ns)
    for name, value in (("price", price), ("spot", spot)):
        if not (math.isfinite(value) and value > 0):
            raise DataError(f"the {name} is {value}: expected a number above 0")
    if quantity == 0:
        return None
    option = _option(config, quantity > 0, spot, now_ns)
    exposure = quantity * price * config.point_value
    premium = option.price * config.multiplier
    per_contract = abs(option.delta) * spot * config.multiplier
    if premium < _WORTHLESS:
        raise DataError(f"{_name(config, option)} is worth nothing: choose a nearer strike")
    by_budget = config.budget / premium
    by_exposure = abs(exposure) * config.beta / per_contract
    return HedgePlan(
        option,
        _name(config, option),
        exposure,
        premium,
        by_budget,
        by_exposure,
        math.floor(min(by_budget, by_exposure)),
        "budget" if by_budget < by_exposure else "exposure",
    )


def closing_premium(
    config: HedgeConfig, instrument: str, *, spot: float, now_ns: int
) -> float | None:
    """Return what an option that a hedge bought is worth, per unit of the ETF.

    Parameters
    ----------
    instrument : str
        As `HedgePlan.instrument`; its expiry and strike, not those of ``config``, count.
    spot : float
        Of the ETF, in its currency, at ``now_ns`` at the latest.

    Returns
    -------
    float or None
        None where it has expired or is worth nothing.

    Raises
    ------
    ConfigError
        If the implied volatility is stale.
    DataError
        If the option is one of another ETF, or the spot is no number above 0.
    """
    check_fresh(config, now_ns)
    etf, expiry, right, strike = instrument.rsplit(" ", 3)
    if etf != config.etf:
        raise DataError(
            f"{instrument} is held, but [hedge] etf is {config.etf}: its spot prices no {etf}"
        )
    if (years := _years_left(expiry, now_ns)) <= 0:
        return None
    option = Option(
        "put" if right == "P" else "call",
        spot,
        float(strike),
        years,
        config.implied_volatility,
        config.rate,
        config.dividend_yield,
    )
    return option.price if option.price * config.multiplier >= _WORTHLESS else None


def check_fresh(config: HedgeConfig, now_ns: int) -> None:
    """Refuse a beta and a volatility that nobody has looked at for too long."""
    age = (datetime.fromtimestamp(now_ns / _NS, UTC).date() - _day("as_of", config.as_of)).days
    if age > config.max_age_days:
        raise ConfigError(
            f"[hedge] beta and implied_volatility are of {config.as_of}, {age} days old: the most "
            f"is {config.max_age_days}; estimate them anew and set as_of"
        )
    if age < 0:
        raise ConfigError(
            f"[hedge] as_of is {config.as_of}, a day to come: expected today or before"
        )


def _option(config: HedgeConfig, is_long: bool, spot: float, now_ns: int) -> Option:
    if (years := _years_left(config.expiry, now_ns)) <= 0:
        raise ConfigError(f"[hedge] expiry {config.expiry} has passed: choose a later one")
    strike = round(spot * config.strike_ratio / config.strike_step) * config.strike_step
    if strike <= 0:
        raise ConfigError(
            f"[hedge] strike_step {config.strike_step:g} is too wide for a spot of {spot:g}"
        )
    return Option(
        "put" if is_long else "call",
        spot,
        strike,
        years,
        config.implied_volatility,
        config.rate,
        config.dividend_yield,
    )


def _years_left(expiry: str, now_ns: int) -> float:
    day = _day("expiry", expiry)
    ends_s = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + 86400
    return (ends_s - now_ns / _NS) / _YEAR_S


def _name(config: HedgeConfig, option: Option) -> str:
    return f"{config.etf} {config.expiry} {option.right[0].upper()} {option.strike:g}"


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{name} is {text!r}: expected a date such as 2026-03-20") from error
