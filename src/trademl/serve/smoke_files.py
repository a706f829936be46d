"""Questions for a machine that asks its own server, and the scores that it must hear, as files.

``smoke/N.json`` is the body of the question to strategy N: the mean of its training rows. Each
line of ``smoke/scores.tsv`` is the number and the name of a strategy, one of its models, biggest
first, the score that this model gives here, and by how much the answer may differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trademl.serve.model_pool import ModelFile
from trademl.serve.serving_folder import model_files
from trademl.serve.smoke import TOLERANCE
from trademl.serve.strategies import ServedStrategy
from trademl.train.model import LinearModel, load_binary_model

SCORES = "smoke/scores.tsv"
NETWORK_TOLERANCE = 1e-4  # another processor, or a card, adds in another order


def smoke_files(strategies: Sequence[ServedStrategy]) -> dict[str, bytes]:
    """Return the files by their names.

    Raises
    ------
    StoreError
        If a model cannot be read, or is no binary classifier.
    """
    found, lines = {}, []
    for number, strategy in enumerate(strategies):
        files = model_files(strategy)
        smallest = load_binary_model(Path(files[-1].location))
        row_1D = np.asarray(smallest.mean_D, np.float32)[None]
        question = {"instances": [{"features": row_1D[0].tolist()}]}
        found[f"smoke/{number}.json"] = json.dumps(question).encode()
        lines += [f"{number}\t{strategy.name}\t{_expected(file, row_1D)}\n" for file in files]
    return {**found, SCORES: "".join(lines).encode()}


def _expected(file: ModelFile, row_1D: np.ndarray) -> str:
    model = load_binary_model(Path(file.location))
    tolerance = TOLERANCE if isinstance(model, LinearModel) else NETWORK_TOLERANCE
    return f"{file.id}\t{float(model.scores(row_1D)[0])!r}\t{tolerance!r}"
