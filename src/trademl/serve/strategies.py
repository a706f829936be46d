"""A strategy as it is served: its ladder of models, its rules, its share of the machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from trademl.errors import ConfigError
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.model_pool import ModelFile
from trademl.serve.served import ServedModel
from trademl.serve.shares import Quota


@dataclass(frozen=True)
class ServedStrategy:
    """What one strategy is answered with.

    Parameters
    ----------
    name : str
        What ``X-Trademl-Strategy`` names.
    ladder : tuple of ServedModel or ModelFile
        Its models, biggest first. Files are read when they are first needed, the last one before
        the first request.
    """

    name: str
    ladder: tuple[ServedModel | ModelFile, ...]
    policy: LadderPolicy = field(default_factory=LadderPolicy)
    freshness: Freshness = field(default_factory=Freshness)
    quota: Quota = field(default_factory=Quota)

    def __post_init__(self) -> None:
        if not self.ladder:
            raise ConfigError(f"strategy {self.name} has no model: give it at least one")

    def __str__(self) -> str:
        first = self.ladder[0]
        standing = f"{first.mode}, {first.status}" if isinstance(first, ServedModel) else "file"
        smaller = f", {len(self.ladder) - 1} smaller" if len(self.ladder) > 1 else ""
        return f"{first.id} ({standing}{smaller})"
