"""A model as the server holds it: what scores, and what every answer says about it.

Shape letters: N rows, D feature columns, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trademl.ports import Predictor
from trademl.serve.row_sum import score_row
from trademl.train.model import LinearModel

Mode = Literal["live", "shadow"]
Status = Literal["accepted", "refused"]

ScoreOne = Callable[[NDArray[np.float32]], float]

_LONGEST_REASONS = 1024
_FLOAT32 = np.dtype(np.float32)


class Scores(NamedTuple):
    """What a model said of rows: scores (N,) or (N, K), labels (N,) or None, all float32."""

    score_N: NDArray[np.float32]
    label_N: NDArray[np.float32] | None

    def part(self, start: int, stop: int) -> Scores:
        """Return what it said of some of the rows."""
        label_N = self.label_N
        return Scores(self.score_N[start:stop], None if label_N is None else label_N[start:stop])


@dataclass(frozen=True, eq=False)
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
    made_at_s : float, optional
        When it was made, in seconds since 1970.

    Attributes
    ----------
    head : bytes
        Header lines of every answer: which model, and how it stands.
    feature_dim : int
        Number of features of a row, D.
    score_one : callable or None
        Returns the score of one row, or NaN where only `scores` can tell: of an accepted linear
        model, whose answers have nothing more to say.
    threshold : float
        Least score of its label 1.
    """

    model: Predictor
    id: str
    mode: Mode = "live"
    status: Status = "accepted"
    reasons: tuple[str, ...] = ()
    made_at_s: float | None = None
    head: bytes = field(init=False, repr=False)
    feature_dim: int = field(init=False, repr=False)
    score_one: ScoreOne | None = field(init=False, repr=False)
    threshold: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", _standing_headers(self))
        object.__setattr__(self, "feature_dim", len(self.model.columns))
        plain = self.model if type(self.model) is _Linear and self.status == "accepted" else None
        object.__setattr__(self, "score_one", plain.score_one if plain else None)
        object.__setattr__(self, "threshold", plain.threshold if plain else math.nan)

    def scores(self, features_ND: NDArray[np.float32]) -> Scores:
        """Return what the model says of rows."""
        score_N, label_N = self.model.predict(features_ND)
        if score_N.dtype is not _FLOAT32:
            score_N = score_N.astype(np.float32)
        if label_N is not None and label_N.dtype is not _FLOAT32:
            label_N = label_N.astype(np.float32)
        return Scores(score_N, label_N)

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


def served(
    model: Predictor,
    model_id: str,
    *,
    mode: Mode | None = None,
    made_at_s: float | None = None,
) -> ServedModel:
    """Return a loaded model ready to be served, with what selection said of it.

    Parameters
    ----------
    mode : {"live", "shadow"}, optional
        Left out, only an accepted model is live.
    """
    status: Status = "accepted" if getattr(model, "status", "refused") == "accepted" else "refused"
    reasons = tuple(getattr(model, "reasons", ()))
    mode = mode or ("live" if status == "accepted" else "shadow")
    if type(model) is LinearModel:
        model = _Linear(model)
    return ServedModel(model, model_id, mode, status, reasons, made_at_s)


class _Linear:
    """A linear model with everything done beforehand that does not depend on the row.

    Its scores are those of `LinearModel.scores`, bit for bit.
    """

    def __init__(self, model: LinearModel) -> None:
        self.columns = model.columns
        self.schema_hash = model.schema_hash
        self._model = model
        self._weights_D = model.weights_D / model.scale_D
        self._offset = model.bias - float((self._weights_D * model.mean_D).sum())
        self.threshold = float(np.float32(model.threshold))
        self._is_logistic = model.link == "logistic"

    def predict(
        self, features_ND: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        score_N = self._model.scores(features_ND)
        return score_N, (score_N >= np.float32(self.threshold)).astype(np.float32)

    def score_one(self, row_D: NDArray[np.float32]) -> float:
        """Return the score of one row, or NaN; see `ServedModel.score_one`."""
        score: float = score_row(row_D, self._weights_D, self._offset, self._is_logistic)
        return score


def _standing_headers(model: ServedModel) -> bytes:
    """Return the header lines of which model answers, and how it stands."""
    headers = {
        "X-Trademl-Model": model.id,
        "X-Trademl-Mode": model.mode,
        "X-Trademl-Status": model.status,
    }
    if model.status == "refused":
        headers["X-Trademl-Reasons"] = "; ".join(model.reasons)[:_LONGEST_REASONS]
    return b"".join(
        b"%b: %b\r\n" % (name.encode(), header_text(value)) for name, value in headers.items()
    )


@lru_cache(maxsize=256)
def header_text(value: str) -> bytes:
    """Return a text as one header line can hold it."""
    ascii_only = value.encode("ascii", "replace")
    return bytes(byte if 32 <= byte < 127 else ord(" ") for byte in ascii_only).strip()
