"""Settings of an allocation over several assets: section ``[allocation]`` of a strategy file."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from trademl.errors import ConfigError
from trademl.etl.snapshot_indicators import HORIZONS

ModelKind = Literal["ridge", "network"]


@dataclass(frozen=True)
class QuarterlyConfig:
    """What is allocated among, and how.

    Parameters
    ----------
    bars : list of str
        Files of the bars of several instruments: see `trademl.ingest.asset_files.read_assets`.
    factors : str
        Folder of factor files (splits and dividends); "" where there are none.
    without : list of str
        Symbols of the files that are left out.
    since, until : str
        Days, ``YYYY-MM-DD``; "" for all that the files hold.
    spread_bps : float
        Spread of bars that have one price, in hundredths of a percent.
    horizons : list of int
        Bars that indicators look back over.
    period_days : int
        Days of the return that is forecast.
    first_years : float
        Years of snapshots before the first decision; each later one learns from all before it.
    model : {"ridge", "network"}
        The smallest model, or the strategy's ``[network]``, the biggest.
    refit_quarters : int
        Quarters between trainings of a network; a ridge is fitted anew in each.
    step_days : int
        Days between the steps of time that a network sees, ``n_steps`` of them.
    risk_aversion, turnover_penalty : float
        Weights of variance, and of trading costs, against the expected return.
    shrinkage : float
        Share by which covariances are drawn to 0.
    max_weight : float
        Of one asset.
    band : float
        Difference of a weight from its target up to which nothing is traded.
    """

    bars: list[str] = field(default_factory=list)
    factors: str = ""
    without: list[str] = field(default_factory=list)
    since: str = ""
    until: str = ""
    spread_bps: float = 5.0
    horizons: list[int] = field(default_factory=lambda: list(HORIZONS))
    period_days: int = 91
    first_years: float = 8.0
    model: ModelKind = "ridge"
    refit_quarters: int = 8
    step_days: int = 7
    risk_aversion: float = 5.0
    turnover_penalty: float = 1.0
    shrinkage: float = 0.5
    max_weight: float = 0.4
    band: float = 0.02

    def __post_init__(self) -> None:
        for name in ("period_days", "refit_quarters", "step_days", "first_years", "risk_aversion"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigError(f"allocation.{name} is {value}, expected more than 0")
        for name in ("spread_bps", "turnover_penalty"):
            if not (value := getattr(self, name)) >= 0:
                raise ConfigError(f"allocation.{name} is {value}, expected 0 or more")
        for name in ("shrinkage", "max_weight", "band"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ConfigError(f"allocation.{name} is {value}, expected from 0 to 1")
        for name in ("since", "until"):
            if value := getattr(self, name):
                _day(name, value)


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"allocation.{name} is {text!r}, expected a day such as 2007-01-01"
        ) from error
