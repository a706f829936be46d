"""The last n columns of numbers that came, side by side; adding one costs the same for any n.

Every column is written twice, n cells apart, so that whatever the newest column is, the n columns
that end with it lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Ring:
    """A window of ``n_columns`` columns of ``n_rows`` numbers each; NaN where none came yet.

    Attributes
    ----------
    n_written : int
        Columns written so far, those that `repeat` left out included: none of its work depends
        on the length of the window but one `repeat` that fills all of it.
    """

    def __init__(self, n_rows: int, n_columns: int) -> None:
        self._cells = np.full((n_rows, 2 * n_columns), np.nan)
        self._rows = [self._cells[row] for row in range(n_rows)]
        self._n, self._at = n_columns, 0
        self.n_written = 0

    def push(self, column: Sequence[float]) -> None:
        """Add a column; the oldest goes."""
        at, twin = self._at, self._at + self._n
        for row, value in zip(self._rows, column, strict=True):
            row[at] = row[twin] = value
        self._at = 0 if at + 1 == self._n else at + 1
        self.n_written += 1

    def repeat(self, column: Sequence[float], times: int) -> None:
        """Add the same column many times."""
        kept = min(times, self._n)
        first = min(kept, self._n - self._at)
        values = np.array(column)[:, None]
        for start, stop in ((self._at, self._at + first), (0, kept - first)):
            self._cells[:, start:stop] = values
            self._cells[:, self._n + start : self._n + stop] = values
        self._at = (self._at + kept) % self._n
        self.n_written += kept

    def window(self) -> NDArray[np.float64]:
        """Return the columns, oldest first: a view that holds until the next one is added."""
        return self._cells[:, self._at : self._at + self._n]
