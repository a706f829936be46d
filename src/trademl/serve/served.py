"""A model as the server holds it: what scores, and what every answer says about it.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from trademl.train.model import LinearModel

Mode = Literal["live", "shadow"]
Status = Literal["accepted", "refused"]


class Predictor(Protocol):
    """Scores rows: the same row always gets the same score, in any batch and from any thread."""

    @property
    def feature_dim(self) -> int:
        """Number of features of a row, D."""

    @property
    def threshold(self) -> float:
        """A row is predicted positive where its score is at or above it."""

    def scores(self, features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the score of each row, shape (N,); raise nothing for finite features."""


@dataclass(frozen=True)
class ServedModel:
    """A model with its standing.

    Parameters
    ----------
    model : Predictor
        What scores.
    id : str
        Id of the model's artifact.
    mode : {"live", "shadow"}
        A shadow model's predictions are for comparison, never for trading.
    status : {"accepted", "refused"}
        What the gate said of it.
    reasons : tuple of str
        Why the gate refused it; empty if it did not.
    """

    model: Predictor
    id: str
    mode: Mode = "live"
    status: Status = "accepted"
    reasons: tuple[str, ...] = ()

    def note(self) -> dict[str, Any] | None:
        """Return what a JSON answer must say of a refused model, None for an accepted one."""
        if self.status == "accepted":
            return None
        return {
            "id": self.id,
            "status": self.status,
            "mode": self.mode,
            "reasons": list(self.reasons),
        }


def served_linear(model: LinearModel, model_id: str, *, mode: Mode | None = None) -> ServedModel:
    """Return a trained linear model ready to be served, with what selection said of it.

    Parameters
    ----------
    mode : {"live", "shadow"}, optional
        Left out, only an accepted model is live.
    """
    mode = mode or ("live" if model.status == "accepted" else "shadow")
    return ServedModel(_Linear(model), model_id, mode, model.status, tuple(model.reasons))


@dataclass(frozen=True)
class _Linear:
    """A linear model as a `Predictor`."""

    model: LinearModel

    @property
    def feature_dim(self) -> int:
        return len(self.model.weights_D)

    @property
    def threshold(self) -> float:
        return self.model.threshold

    def scores(self, features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.model.scores(features_ND)
