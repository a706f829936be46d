"""What is in a dataset: facts that a user should know before trusting it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trademl.etl.dataset import SPLITS, map_split
from trademl.etl.recipe import read_recipe
from trademl.stats.uniqueness import average_uniqueness
from trademl.store.artifacts import Artifact

FIRST_ROWS, FIRST_COLUMNS = 3, 8


def inspect_dataset(dataset: Artifact) -> dict[str, Any]:
    """Return rows, span, balance and uniqueness of each split, what was dropped, and first rows."""
    splits = {name: map_split(dataset, name) for name in SPLITS}
    names = [c["name"] for c in read_recipe(dataset.file("schema.json")).columns()]
    facts = dict(dataset.metrics)
    facts["splits"] = {
        name: facts["splits"][name]
        | {"uniqueness": float(np.mean(average_uniqueness(split.as_of_N, split.exit_N)))}
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
