"""The server under test: a ladder of two linear models of 605 features, everything switched on.

``python serve_worker.py WEIGHTS.npy`` prints its URL and serves until it is told to stop.
"""

from __future__ import annotations

import sys

import numpy as np

import trademl.serve.deployments  # noqa: F401  (as ``trademl serve`` holds it in memory)
from trademl.serve.server import ServedStrategy, ServerConfig, serve
from trademl.serve.served import ServedModel, served
from trademl.train.model import LinearModel


def main() -> None:
    weights_D = np.load(sys.argv[1])
    biggest, smallest = linear("biggest", weights_D), linear("smallest", np.round(weights_D, 2))
    serve(
        ServedStrategy("bench", (biggest, smallest)),
        ServerConfig(port=0),
        on_ready=lambda url: print(url, flush=True),
    )


def linear(name: str, weights_D: np.ndarray) -> ServedModel:
    n = len(weights_D)
    columns = tuple(f"x{k}" for k in range(n))
    model = LinearModel(weights_D, 0.0, np.zeros(n), np.ones(n), 0.5, columns)
    return served(model, name, mode="live")


if __name__ == "__main__":
    main()
