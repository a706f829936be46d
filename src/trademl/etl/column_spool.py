"""Columns of numbers on disk, a file each: appended in blocks, read back one by one or in part.

Shape letter: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ColumnSpool:
    """Columns of N rows below a folder; memory holds only what is asked for.

    Parameters
    ----------
    folder : Path
        An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __contains__(self, name: str) -> bool:
        return name in self._dtypes

    def append(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Append rows; every block has the same columns of the same dtypes."""
        for name, values_N in columns.items():
            self._dtypes[name] = values_N.dtype
            with (self._folder / name).open("ab") as file:
                file.write(np.ascontiguousarray(values_N).data)
        self._n += len(next(iter(columns.values())))

    def column(self, name: str) -> NDArray[Any]:
        """Return a whole column, shape (N,)."""
        return self._read(name, 0, self._n)

    def rows(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return rows ``start`` to ``stop`` (exclusive) of every column."""
        return {name: self._read(name, start, stop) for name in self._dtypes}

    def _read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        dtype = self._dtypes[name]
        first_byte = start * dtype.itemsize
        return np.fromfile(self._folder / name, dtype, stop - start, offset=first_byte)
