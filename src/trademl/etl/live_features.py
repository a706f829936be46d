"""Feature rows of a feed as it comes: each quote is taken up once, whatever the recipe looks back.

Shape letter: D columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trademl.errors import ConfigError
from trademl.etl.features import source_of
from trademl.etl.live_bars import LiveBars
from trademl.etl.recipe import FeatureRecipe
from trademl.market.quotes import QuoteTick
from trademl.market.second_ring import SecondRing
from trademl.market.seconds import SecondGrid

_FIRST = np.zeros(1, np.int64)


class LiveRow(NamedTuple):
    """The features of a row decided on the newest quote, or why there are none.

    Parameters
    ----------
    features_D : ndarray of float32 or None
    reason : str
        Empty where there are features.
    """

    features_D: NDArray[np.float32] | None
    reason: str = ""


class LiveFeatures:
    """The rows that `trademl.etl.features.feature_matrix` makes of the same quotes, bit for bit.

    Parameters
    ----------
    recipe : FeatureRecipe
        The columns.
    least_s : int
        Seconds that `grid` has at least, for others who look back.

    Raises
    ------
    ConfigError
        If an indicator is of a recording's own bars: a feed brings quotes.

    Notes
    -----
    A quote costs the same for any number of lags: it adds to its second, and a second that is over
    is written into a ring once. A row reads that ring with the code that makes datasets.
    """

    def __init__(self, recipe: FeatureRecipe, *, least_s: int = 1) -> None:
        if own := [indicator.name for indicator in recipe.indicators if indicator.of != "clock"]:
            raise ConfigError(
                f"indicators {', '.join(own)} are of a recording's own bars, and a feed brings "
                "quotes: train on indicators with of = 'clock' to trade live"
            )
        self._recipe = recipe
        self._seconds = SecondRing(max(recipe.history_s, least_s))
        self._bars = [LiveBars(indicator, recipe.max_gap_s) for indicator in recipe.indicators]
        self._dim = recipe.feature_dim
        self._tick: QuoteTick | None = None

    @property
    def n_written(self) -> int:
        """Seconds written into the ring so far: what all quotes together cost."""
        return self._seconds.n_written

    def on_quote(self, tick: QuoteTick) -> None:
        """Take the next quote, flagged or not.

        Raises
        ------
        DataError
            If it is of an earlier second than the one before.
        """
        self._seconds.add(tick)
        for bars in self._bars:
            bars.add(tick)
        self._tick = tick

    def grid(self) -> SecondGrid:
        """Return the seconds before the newest quote's; its second is the cell beyond the end."""
        return self._seconds.grid()

    def row(self) -> LiveRow:
        """Return the row decided on the newest quote.

        Notes
        -----
        Causal: reads that quote and, for all else, quotes of seconds strictly before its second.
        """
        tick, recipe = self._tick, self._recipe
        if tick is None or tick.flags != 0:
            return LiveRow(None, "no executable quote")
        grid = self._seconds.grid()
        cell_N = np.array([len(grid)])
        if not grid.has_full_history(cell_N, recipe.history_s, recipe.max_gap_s)[0]:
            return LiveRow(None, f"less than {recipe.history_s} s of history without a gap")
        values = [bars.values() for bars in self._bars]
        source = source_of(tick.as_quotes(), grid, _FIRST, recipe, values)
        if not source.is_finished[0]:
            return LiveRow(None, "a window of an indicator or of the volatility is not full")
        out_ND = np.empty((1, self._dim), np.float32)
        source.fill(out_ND)
        return LiveRow(out_ND[0])
