"""A strategy as it is served: its ladder of models, its rules, its share of the machine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from trademl.errors import ConfigError, require_extra
from trademl.serve.archives import check_digest
from trademl.serve.freshness import Freshness
from trademl.serve.ladder import LadderPolicy
from trademl.serve.model_pool import ModelFile
from trademl.serve.placement import CPU, check_device
from trademl.serve.served import ServedModel, served
from trademl.serve.shares import Quota
from trademl.train.model import load_model
from trademl.train.model_archive import is_network_file


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


def ready(strategy: ServedStrategy) -> ServedStrategy:
    """Return a strategy as this machine serves it: the model that is followed is in memory.

    One that computes on a graphics card is read when it is first needed, as the others are.

    Raises
    ------
    ConfigError
        If a device is not there.
    MissingExtraError
        If there is a network among the models, and torch is not installed.
    StoreError
        If the model that is followed cannot be read, or is not what its digest says.
    """
    for entry in strategy.ladder:
        if isinstance(entry, ModelFile):
            check_device(entry.device)
            if Path(entry.location).is_file() and is_network_file(Path(entry.location)):
                require_extra("train")
    followed = strategy.ladder[strategy.followed]
    if not isinstance(followed, ModelFile) or followed.device != CPU:
        return strategy
    ladder = list(strategy.ladder)
    ladder[strategy.followed] = loaded(followed)
    return replace(strategy, ladder=tuple(ladder))


def loaded(file: ModelFile) -> ServedModel:
    """Return the model of a file, in memory.

    Raises
    ------
    StoreError
        If it cannot be read, or is not what its digest says.
    """
    path = Path(file.location)
    if file.sha256:
        check_digest(path, file.sha256)
    return served(load_model(path), file.id, mode=file.mode, made_at_s=file.made_at_s)
