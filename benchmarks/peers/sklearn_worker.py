"""Logistic regression as scikit-learn fits it: step by step, and by L-BFGS."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from worker import serve

DATA: dict[str, dict[str, Any]] = {}
BATCH = 10_000  # rows of a call of partial_fit: memory stays bounded, as in a stream


def load(name: str, path: str) -> int:
    """Read the arrays of an ``.npz`` file, normalised already, and return how many rows train."""
    held = np.load(path)
    DATA[name] = {key: held[key] for key in held.files}
    return len(DATA[name]["y"])


def sgd(name: str, epochs: int, rate: float, l1: float, l2: float) -> dict[str, float]:
    """Train epochs over shuffled rows; return seconds, and the log loss of the validation rows."""
    data = DATA[name]
    model = SGDClassifier(
        loss="log_loss",
        penalty="elasticnet",
        alpha=l1 + l2,
        l1_ratio=l1 / (l1 + l2),
        learning_rate="invscaling",
        power_t=0.25,
        eta0=rate,
        random_state=0,
    )
    start = time.perf_counter()
    for _ in range(epochs):
        for at in range(0, len(data["y"]), BATCH):
            model.partial_fit(data["x"][at : at + BATCH], data["y"][at : at + BATCH], [0, 1])
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "loss": _loss(model, data)}


def lbfgs(name: str, l2: float) -> dict[str, float]:
    """Solve for the optimum with plain L2; return the seconds and the log loss of validation."""
    data = DATA[name]
    model = LogisticRegression(C=1.0 / (l2 * len(data["y"])), tol=1e-4, max_iter=1000)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(data["x"], data["y"])
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "loss": _loss(model, data)}


def _loss(model: Any, data: dict[str, Any]) -> float:
    return float(log_loss(data["y_val"], model.predict_proba(data["x_val"])[:, 1]))


if __name__ == "__main__":
    serve(load, sgd, lbfgs)
