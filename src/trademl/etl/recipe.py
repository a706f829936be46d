"""A feature recipe: what the columns of a dataset are, and the latest time that each one reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trademl.errors import DataError
from trademl.market.quotes import NS_PER_S
from trademl.store.identity import digest_bytes

SCHEMA_VERSION = 2
QUOTE_COLUMNS = ("bid", "ask", "mid_open", "high", "low")
QuoteColumn = Literal["bid", "ask", "mid_open", "high", "low"]
Scaling = Literal["none", "returns", "volatility"]
BarsOf = Literal["clock", "recording"]


@dataclass(frozen=True, slots=True)
class Lags:
    """Recent mid prices: ``number`` windows of ``spacing_s`` seconds, one column each.

    The first window ends where the as-of second begins. A column is the mean over its window of
    the seconds' mean mids.
    """

    number: int = 600
    spacing_s: int = 1

    def __post_init__(self) -> None:
        if self.number < 1 or self.spacing_s < 1:
            raise ValueError(f"lags are {self.number} x {self.spacing_s} s, expected 1 or more")

    @property
    def span_s(self) -> int:
        """Seconds that all windows cover."""
        return self.number * self.spacing_s


@dataclass(frozen=True, slots=True)
class Indicator:
    """A TA-Lib function on bars of mid prices.

    Parameters
    ----------
    name : str
        TA-Lib's name, for example ``RSI``.
    bar_s : int
        Length of a bar, in seconds; bars are aligned to the clock. Of the recording's own bars the
        most that they may last on average: a row whose window begins earlier is dropped, so that
        none reaches over a session's end into the one before.
    parameters : mapping
        TA-Lib's own, for example ``{"timeperiod": 14}``.
    bars : int
        Whole bars that each value is computed from; 0 takes what the function needs, four times as
        many where it never forgets (an exponential mean). A fixed number makes a value depend on
        its own window alone, wherever the recording begins.
    of : {"clock", "recording"}
        Bars of the clock, made of quotes, or those that the recording itself consists of. Of the
        latter the last one is read too: it ends on the quote that a row is decided on.
    """

    name: str
    bar_s: int = 60
    parameters: Mapping[str, float] = field(default_factory=dict)
    bars: int = 0
    of: BarsOf = "clock"

    def __post_init__(self) -> None:
        if self.bar_s < 1 or self.bars < 0:
            raise ValueError(
                f"indicator {self.name} has bar_s {self.bar_s} and bars {self.bars}, expected at "
                "least 1 and 0"
            )


@dataclass(frozen=True, slots=True)
class FeatureRecipe:
    """What the columns of a dataset are, in this order.

    Parameters
    ----------
    quote_columns : tuple of str
        Columns of the as-of quote, each minus its mid.
    spread : bool
        Ask minus bid of the as-of quote.
    volatility_s : tuple of int
        Windows of seconds before the as-of second: root mean square of one-second mid changes.
    lags : tuple of Lags
        Resolutions, each oldest first, minus the mid at as-of.
    indicators : tuple of Indicator
        Prices among their outputs are taken minus the mid at as-of. Those on the recording's own
        bars stand before the lags, the others after them.
    scaling : {"none", "returns", "volatility"}
        Unit of price columns: quote currency; shares of the mid; or multiples of the move to be
        expected over ``scaling_window_s`` from the volatility of that window before as-of.
    scaling_window_s : int
        Seconds.
    max_gap_s : int
        Longest time for which a second without a tick carries the last one forward; a row whose
        history has a longer gap is dropped, never filled.
    """

    quote_columns: tuple[QuoteColumn, ...] = QUOTE_COLUMNS  # type: ignore[assignment]
    spread: bool = False
    volatility_s: tuple[int, ...] = ()
    lags: tuple[Lags, ...] = (Lags(),)
    indicators: tuple[Indicator, ...] = ()
    scaling: Scaling = "none"
    scaling_window_s: int = 600
    max_gap_s: int = 60

    def __post_init__(self) -> None:
        if self.max_gap_s < 0:
            raise ValueError(f"max_gap_s is {self.max_gap_s}, expected 0 or more")
        if any(w < 2 for w in (*self.volatility_s, self.scaling_window_s)):
            raise ValueError("windows of volatility are 2 seconds or more")
        if not any(
            (self.quote_columns, self.spread, self.volatility_s, self.lags, self.indicators)
        ):
            raise ValueError("the recipe has no columns")

    @property
    def history_s(self) -> int:
        """Seconds before the as-of second that must all have a value."""
        spans = [lags.span_s for lags in self.lags] + list(self.volatility_s)
        if self.scaling == "volatility":
            spans.append(self.scaling_window_s)
        return max(spans, default=1)

    @property
    def lookback_ns(self) -> int:
        """Longest time before its as-of second from which a row reads, carried values included."""
        from trademl.etl.indicators import window_s

        gap_s = self.max_gap_s
        spans = [window_s(i) + max(gap_s, i.bar_s) for i in self.indicators]
        return max([self.history_s + gap_s, *spans]) * NS_PER_S

    def start_ns(self, as_of_ns_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the earliest time that each row may read: its interval begins there."""
        return as_of_ns_N // NS_PER_S * NS_PER_S - self.lookback_ns

    @property
    def n_lags(self) -> int:
        """Number of lag columns."""
        return sum(lags.number for lags in self.lags)

    @property
    def feature_dim(self) -> int:
        """Number of columns, D."""
        return len(self.columns())

    def columns(self) -> list[dict[str, str]]:
        """Return name, unit and latest time read of each column, in order."""
        return [
            *self._at_as_of(),
            *self._indicator_columns("recording"),
            *self._lag_columns(),
            *self._indicator_columns("clock"),
        ]

    def _at_as_of(self) -> list[dict[str, str]]:
        relative = f"{self._price_unit}, minus the mid at as-of"
        columns = [_column(name, relative, "as-of") for name in self.quote_columns]
        if self.spread:
            columns.append(_column("spread", self._price_unit, "as-of"))
        before = "end of the second before the as-of second"
        return columns + [
            _column(f"volatility_{w}s", f"{self._price_unit} a square root of a second", before)
            for w in self.volatility_s
        ]

    def _lag_columns(self) -> list[dict[str, str]]:
        unit = f"{self._price_unit}, minus the mid at as-of"
        columns = []
        for lags in self.lags:
            for k in range(lags.number, 0, -1):
                end_s = (k - 1) * lags.spacing_s
                name = f"mid_lag_{k * lags.spacing_s}s"
                name += "" if lags.spacing_s == 1 else f"_of_{lags.spacing_s}s"
                columns.append(
                    _column(name, unit, f"{end_s} s before the as-of second begins, exclusive")
                )
        return columns

    def _indicator_columns(self, of: BarsOf) -> list[dict[str, str]]:
        from trademl.etl.indicators import output_names

        columns = []
        for indicator in (i for i in self.indicators if i.of == of):
            for name, is_price in output_names(indicator):
                unit = f"{self._price_unit}, minus the mid at as-of" if is_price else "of TA-Lib"
                end = f"end of the last {indicator.bar_s} s bar before the as-of second"
                columns.append(_column(name, unit, "as-of" if of == "recording" else end))
        return columns

    @property
    def _price_unit(self) -> str:
        return {
            "none": "quote currency",
            "returns": "share of the mid at as-of",
            "volatility": f"expected moves over {self.scaling_window_s} s",
        }[self.scaling]


def schema(recipe: FeatureRecipe) -> dict[str, Any]:
    """Return the column schema of a recipe, with a hash that a dataset is known by."""
    content = {
        "version": SCHEMA_VERSION,
        "recipe": asdict(recipe),
        "columns": recipe.columns(),
    }
    canonical = json.dumps(content, sort_keys=True).encode()
    return content | {"hash": digest_bytes(canonical)[:16]}


def _column(name: str, unit: str, reads_up_to: str) -> dict[str, str]:
    return {"name": name, "unit": unit, "reads_up_to": reads_up_to}


def read_recipe(path: Path) -> FeatureRecipe:
    """Return the recipe that a dataset's ``schema.json`` was made from.

    Raises
    ------
    DataError
        If the file is damaged or of another schema version.
    """
    import msgspec

    try:
        content = json.loads(path.read_bytes())
        version = content["version"]
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{path} has schema version {version}, expected {SCHEMA_VERSION}: build it again"
            )
        return msgspec.convert(content["recipe"], FeatureRecipe)
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise DataError(f"{path} is damaged ({error}): delete its folder and run again") from error
