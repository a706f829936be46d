"""What is in a dataset: facts that a user should know before trusting it.

Shape letter: N rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trademl.etl.dataset import SPLITS, map_split
from trademl.etl.recipe import read_recipe
from trademl.market.quotes import NS_PER_S
from trademl.store.artifacts import Artifact

FIRST_ROWS, FIRST_COLUMNS = 3, 8


def inspect_dataset(dataset: Artifact) -> dict[str, Any]:
    """Return rows, span, balance and uniqueness of each split, what was dropped, and first rows."""
    splits = {name: map_split(dataset, name) for name in SPLITS}
    names = [c["name"] for c in read_recipe(dataset.file("schema.json")).columns()]
    facts = dict(dataset.metrics)
    facts["splits"] = {
        name: facts["splits"][name]
        | {"uniqueness": average_uniqueness(split.as_of_N, split.exit_N)}
        for name, split in splits.items()
    }
    train = splits["train"]
    facts["first_rows"] = [
        {
            "order_id": int(train.order_id_N[row]),
            "label": int(train.label_N[row]),
            "pnl": float(train.pnl_N[row]),
            **{
                name: float(train.features_ND[row, k])
                for k, name in enumerate(names[:FIRST_COLUMNS])
            },
        }
        for row in range(min(FIRST_ROWS, len(train)))
    ]
    return facts


def average_uniqueness(start_N: NDArray[np.int64], exit_N: NDArray[np.int64]) -> float | None:
    """Return the mean share of its own life that a label does not share with others.

    One means that no two labels overlap in time; 0.02 that about fifty live side by side, so that
    the rows hold about a fiftieth as much evidence as their number suggests.

    Parameters
    ----------
    start_N, exit_N : ndarray of int64, shape (N,)
        UTC ns; resolved to whole seconds.

    Notes
    -----
    Source: Lopez de Prado (2018), "Advances in Financial Machine Learning", section 4.3.

    Examples
    --------
    >>> average_uniqueness(np.array([0, 10**9]), np.array([2 * 10**9, 3 * 10**9]))
    0.6666666666666666
    """
    if len(start_N) == 0:
        return None
    first = int(start_N.min() // NS_PER_S)
    start = start_N // NS_PER_S - first
    stop = np.maximum(exit_N // NS_PER_S - first, start) + 1
    n_alive = np.cumsum(np.bincount(start, minlength=stop.max() + 1) - np.bincount(stop))
    shares = np.concatenate(([0.0], np.cumsum(1 / np.maximum(n_alive, 1))))
    return float(np.mean((shares[stop] - shares[start]) / (stop - start)))
