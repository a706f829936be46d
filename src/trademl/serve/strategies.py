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
    followed : int
        Number of the model that stands for what is deployed: the next one takes its place.
    """

    name: str
    ladder: tuple[ServedModel | ModelFile, ...]
    policy: LadderPolicy = field(default_factory=LadderPolicy)
    freshness: Freshness = field(default_factory=Freshness)
    quota: Quota = field(default_factory=Quota)
    followed: int = 0

    def __post_init__(self) -> None:
        if not self.ladder:
            raise ConfigError(f"strategy {self.name} has no model: give it at least one")
        if not 0 <= self.followed < len(self.ladder):
            raise ConfigError(f"strategy {self.name} has no model {self.followed} to be followed")

    def __str__(self) -> str:
        deployed, n = self.ladder[self.followed], len(self.ladder) - 1 - self.followed
        facts = [f"{deployed.mode}, {deployed.status}"] if isinstance(deployed, ServedModel) else []
        facts += [f"{self.followed} bigger"] * bool(self.followed) + [f"{n} smaller"] * bool(n)
        return f"{deployed.id} ({', '.join(facts) or 'file'})"
