"""What writers of columnar files share: a block of rows that becomes arrays of Arrow.

Shape letters: B rows of a block, D features.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trademl.etl._writer import BlockWriter, check_feature_dim

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float32]


class ColumnsWriter(BlockWriter):
    """A `BlockWriter` whose format is a writer of Arrow's.

    Parameters
    ----------
    path, feature_dim, with_label
        As for `BlockWriter`.
    block_bytes : int
        Of float32 in a block.
    """

    def __init__(self, path: Path, feature_dim: int, *, with_label: bool, block_bytes: int) -> None:
        check_feature_dim(feature_dim)
        n = max(1, block_bytes // (4 * feature_dim))
        super().__init__(path, feature_dim, with_label=with_label, rows_per_block=n)
        self._features_BD = np.empty((n, feature_dim), np.float32)
        self._label_B = np.empty(n, np.float32)
        self._files = ExitStack()
        self._schema: pa.Schema
        self._writer: Any

    def _close(self) -> None:
        self._files.close()

    def _room(self, n: int) -> tuple[Floats, Floats | None]:
        return self._features_BD[:n], self._label_B[:n] if self._with_label else None

    def _append(self, n: int) -> None:
        import pyarrow as pa

        columns = [self._label_B[:n]] if self._with_label else []
        columns += list(np.ascontiguousarray(self._features_BD[:n].T))
        arrays = [pa.array(column) for column in columns]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
