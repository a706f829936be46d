"""The last seconds of a feed on the wall clock, kept up quote by quote.

Shape letter: T seconds.
"""

from __future__ import annotations

import numpy as np

from trademl.errors import DataError
from trademl.market.quotes import NS_PER_S, QuoteTick
from trademl.market.ring import Ring
from trademl.market.seconds import SecondGrid


class SecondRing:
    """What `second_grid` makes of a recording, for the seconds before the newest quote's.

    Parameters
    ----------
    n_seconds : int
        Seconds kept, T.

    Notes
    -----
    Every number is that of `second_grid` to the last bit: it is summed in the same order. A quote
    costs the same whatever T is; a silence costs what its seconds do, at most T.
    """

    def __init__(self, n_seconds: int) -> None:
        self._n = n_seconds
        self._ring = Ring(3, n_seconds)  # mean, last, and the second that both come from
        self._second: int | None = None
        self._total, self._count = 0.0, 0
        self._mean, self._last, self._born = float("nan"), float("nan"), 0

    @property
    def n_written(self) -> int:
        """Seconds written so far: what all quotes together cost."""
        return self._ring.n_written

    def add(self, tick: QuoteTick) -> None:
        """Take the next quote.

        Raises
        ------
        DataError
            If it is of an earlier second than the one before.
        """
        second = tick.ts_event // NS_PER_S
        if second != self._second:
            self._close(second)
        if tick.flags == 0:
            self._last = (tick.bid + tick.ask) / 2
            self._total += self._last
            self._count += 1

    def grid(self) -> SecondGrid:
        """Return the T seconds before the newest quote's; its second is cell T, beyond the end.

        Seconds before the first quote are NaN.
        """
        second = self._second or 0
        mean_T, last_T, born_T = self._ring.window()
        age_T = np.arange(second - self._n, second) - np.nan_to_num(born_T).astype(np.int64)
        return SecondGrid(second - self._n, mean_T, last_T, age_T)

    def _close(self, second: int) -> None:
        before, self._second = self._second, second
        if before is None:
            return
        if second < before:
            raise DataError(
                f"a quote of second {second} comes after one of second {before}: a feed gives "
                "quotes in order of time"
            )
        if self._count:
            self._mean, self._born = self._total / self._count, before
        column = (self._mean, self._last, self._born)
        self._ring.push(column)
        if silent := second - before - 1:
            self._ring.repeat(column, silent)
        self._total, self._count = 0.0, 0
