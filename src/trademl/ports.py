"""The seams: what the outside world must offer, as small Protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Progress(Protocol):
    """Told what a long job is doing; must not raise and must be cheap."""

    def step(self, name: str, detail: str = "") -> None:
        """Say that the step ``name`` begins."""

    def advance(self, done: int, total: int) -> None:
        """Say how much of the current step is done, in units of the step's own choice."""

    def done(self, detail: str = "") -> None:
        """Say that the current step ended, with its result in a few words."""


class Silent:
    """A `Progress` that says nothing: the default of every library function."""

    def step(self, name: str, detail: str = "") -> None:
        """Ignore it."""

    def advance(self, done: int, total: int) -> None:
        """Ignore it."""

    def done(self, detail: str = "") -> None:
        """Ignore it."""


class Predictor(Protocol):
    """Scores rows: the same row always gets the same score, in any batch and from any thread.

    Shape letters: N rows, D feature columns, K classes.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the D features, in order."""

    @property
    def schema_hash(self) -> str:
        """What two models share only if they take the same columns in the same order."""

    def predict(self, features_ND: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return each row's score, and its label; raise nothing for finite features.

        The score has the shape (N,), or (N, K) with a share for each class. The label has the
        shape (N,), and is None for a model that predicts a quantity.
        """
