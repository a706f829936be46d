"""Training rows in random order, as Linear Learner wants them; ours are in order of time.

Shape letters: N rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trademl.etl.record_file import open_recordio
from trademl.etl.tables import format_of, read_table, table_writer

_ROWS = 4096  # gathered from the mapped file at once


def shuffle_rows(source: Path, target: Path, seed: int) -> None:
    """Write the rows of a file in an order drawn from ``seed``: the same seed, the same bytes.

    Parameters
    ----------
    source, target : Path
        RecordIO or CSV, by their names; both of the same format.

    Raises
    ------
    CodecError
        If the source is damaged.
    """
    if format_of(source) == "recordio" and source.suffix != ".gz":
        file = open_recordio(source)
        order_N = np.random.default_rng(seed).permutation(len(file))
        columns = [""] * file.feature_dim
        with table_writer(target, columns, with_label=file.has_label) as writer:
            for start in range(0, len(order_N), _ROWS):
                writer.write(*file[order_N[start : start + _ROWS]])
        return
    features_ND, label_N = read_table(source)
    order_N = np.random.default_rng(seed).permutation(len(features_ND))
    columns = [""] * features_ND.shape[1]
    with table_writer(target, columns, with_label=label_N is not None) as writer:
        writer.write(features_ND[order_N], None if label_N is None else label_N[order_N])
