"""The seams: what the outside world must offer, as small Protocols."""

from __future__ import annotations

from typing import Protocol


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
