"""The server under test: a ladder of two models of 605 features, everything switched on.

``python serve_worker.py WEIGHTS.npy`` prints its URL and serves until it is told to stop. With
``--slow SECONDS`` the biggest model takes so much processor time for each row; ``--only NAME``
serves one of the two alone, and keeps no answers, so that equal questions cost what others do.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

import trademl.serve.deployments  # noqa: F401  (as ``trademl serve`` holds it in memory)
from trademl.serve.ladder import LadderPolicy
from trademl.serve.served import ServedModel, served
from trademl.serve.server import ServedStrategy, ServerConfig, serve
from trademl.train.model import LinearModel


class Slow:
    """A linear model that works for a while in threads, without Python's lock, as a network does.

    Parameters
    ----------
    row_s : float
        Processor seconds that each row takes.
    """

    def __init__(self, model: LinearModel, row_s: float) -> None:
        self.columns, self.schema_hash = model.columns, model.schema_hash
        self._model, self._row_s = model, row_s
        self._work = np.random.default_rng(1).normal(size=(16, 16))

    def predict(self, features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        until_s = time.thread_time() + self._row_s * len(features_ND)
        while time.thread_time() < until_s:
            self._work @ self._work
        score_N, flag_N = self._model.predict(features_ND)
        return score_N, flag_N.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("--slow", type=float)
    parser.add_argument("--only")
    asked = parser.parse_args()
    ladder = models(np.load(asked.weights), asked.slow)
    ladder = tuple(model for model in ladder if asked.only in (None, model.id))
    policy = LadderPolicy() if asked.only is None else LadderPolicy(cache_max_age_s=0)
    serve(
        ServedStrategy("bench", ladder, policy),
        ServerConfig(port=0),
        on_ready=lambda url: print(url, flush=True),
    )


def models(weights_D: np.ndarray, slow_s: float | None = None) -> tuple[ServedModel, ServedModel]:
    """Return the biggest and the smallest model, whose scores differ."""
    big, small = linear(weights_D), linear(np.round(weights_D, 2))
    biggest = served(big if slow_s is None else Slow(big, slow_s), "biggest", mode="live")
    smallest = served(small, "smallest", mode="live")
    return replace(biggest, status="accepted", reasons=()), replace(
        smallest, status="accepted", reasons=()
    )


def linear(weights_D: np.ndarray) -> LinearModel:
    n = len(weights_D)
    columns = tuple(f"x{k}" for k in range(n))
    return LinearModel(weights_D, 0.0, np.zeros(n), np.ones(n), 0.5, columns)


if __name__ == "__main__":
    main()
