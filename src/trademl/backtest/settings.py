"""The section ``[backtest]`` of a strategy: what a backtest adds to the costs that labels share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from trademl.backtest.limits import Limits
from trademl.errors import ConfigError
from trademl.market.costs import Costs
from trademl.market.quotes import QuoteFlag, Quotes

Sizing = Literal["fixed", "volatility", "kelly"]
NO_LIMIT = float("inf")


@dataclass(frozen=True)
class BacktestConfig:
    """Capital, size of positions, limits on risk, and orders that a venue rejects.

    Parameters
    ----------
    capital : float
        What returns are measured against, and what size is a share of, in quote currency. Profits
        are not put back: sizes do not grow with them.
    account_currency, instrument_currency : str
        Where both are named they must be one: trademl converts nothing.
    sizing : str
        ``fixed``: ``units`` a trade. ``volatility``: as many units as make a position move by
        ``target_volatility_pct`` of the capital a year. ``kelly``: ``kelly_fraction`` of the Kelly
        bet on the score as a probability.
    units : float
        Units of a fixed size.
    target_volatility_pct : float
        Per cent of the capital a year.
    kelly_fraction : float
        From above 0 to 1.
    reject_share : float
        Share of entries that the venue rejects.
    daily_loss, drawdown : float
        Limits in quote currency: see `trademl.backtest.limits.Limits`.
    max_units : float
        Largest position.
    max_gap_s : float
        A silence of the quotes that is longer ends the backtest before it, marked as stopped.
    n_trials : int
        How many strategies were tried before this one, itself included: deflates its Sharpe ratio.
    """

    capital: float = 100_000.0
    account_currency: str = ""
    instrument_currency: str = ""
    sizing: Sizing = "fixed"
    units: float = 1.0
    target_volatility_pct: float = 10.0
    kelly_fraction: float = 0.25
    reject_share: float = 0.001
    daily_loss: float = NO_LIMIT
    drawdown: float = NO_LIMIT
    max_units: float = NO_LIMIT
    max_gap_s: float = NO_LIMIT
    n_trials: int = 1

    def __post_init__(self) -> None:
        for name in ("capital", "units", "target_volatility_pct", "max_gap_s", "n_trials"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} is {value}, expected more than 0")
        if not 0 < self.kelly_fraction <= 1:
            raise ValueError(f"kelly_fraction is {self.kelly_fraction}, expected above 0, up to 1")
        if self.sizing not in (known := get_args(Sizing)):
            raise ValueError(f"sizing is {self.sizing!r}, expected one of {', '.join(known)}")
        ours, theirs = self.account_currency.upper(), self.instrument_currency.upper()
        if ours and theirs and ours != theirs:
            raise ConfigError(
                f"the account is in {ours} and the instrument in {theirs}: trademl converts no "
                "money; convert prices first, or name one currency"
            )
        self.limits(0)

    def limits(self, seed: int) -> Limits:
        """Return the limits on entries; ``seed`` decides which ones are rejected."""
        return Limits(self.daily_loss, self.drawdown, self.max_units, self.reject_share, seed)


def realism(costs: Costs, config: BacktestConfig, quotes: Quotes) -> dict[str, str]:
    """Return what is real in a backtest, part by part, in words for people."""
    volume = f"{costs.impact:g} sigma sqrt(Q/{costs.daily_volume_units:g})"
    financed = costs.financing_long_pct or costs.financing_short_pct
    return {
        "spread": f"as recorded, times {costs.spread_scale:g}",
        "fees": f"{costs.fee_bps:g} bps and {costs.fee_per_unit:g} a unit, each side",
        "slippage": f"{costs.slippage:g} and {costs.slippage_spreads:g} spreads and "
        f"{costs.slippage_volatility:g} sigma",
        "impact": volume if costs.impact else "off",
        "latency": f"{costs.latency_ms:g} ms",
        "quote delay": f"{costs.quote_delay_ms:g} ms",
        "partial fills": _partial_fills(costs, has_sizes=quotes.bid_size is not None),
        "rejected orders": f"{config.reject_share:.2%}",
        "financing": f"{costs.financing_long_pct:g} % bought, {costs.financing_short_pct:g} % sold"
        if financed
        else "off",
        "multiplier": f"{costs.multiplier:g}",
        "closed market": f"{int((quotes.flags & QuoteFlag.CLOSED != 0).sum())} quotes fill nothing",
        "splits, dividends, rolls": _events(quotes),
    }


def _events(quotes: Quotes) -> str:
    if not quotes.events:
        return "none given"
    counts = (
        sum(event.split != 1 for event in quotes.events),
        sum(event.dividend != 0 for event in quotes.events),
        sum(event.is_roll for event in quotes.events),
    )
    return ", ".join(map(str, counts))


def _partial_fills(costs: Costs, *, has_sizes: bool) -> str:
    if not costs.partial_fills:
        return "off"
    return "by the sizes shown" if has_sizes else "on, but the recording shows no sizes"
