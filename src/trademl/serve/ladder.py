"""The degradation ladder: which tier answers, decided from what was measured. Pure functions.

Tiers from best to worst: ``biggest``, ``middle`` (any number of them), ``smallest``, ``cached``,
``delayed``, ``abstain``. A strategy stands on a *level*, the tier that it tries first; it goes down
when load was high for a moment and up when load was low for long, one step at a time. Each
request then takes the best tier from its strategy's level on that is possible for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trademl.errors import ConfigError

BIGGEST = "biggest"
CACHED, DELAYED, ABSTAIN = "cached", "delayed", "abstain"
LONGEST_S = 60.0  # SageMaker gives a container no more for one answer


@dataclass(frozen=True)
class LadderPolicy:
    """When to step down, when to step up, and how long an answer may take.

    Parameters
    ----------
    deadline_ms : float
        How long a caller waits who does not say so; at most 60 s.
    patience_ms : float
        A model whose queue is longer than this is passed over while a lower tier can answer.
    down_utilisation : float
        Step down where the level's model is busy for more than this share of what it may use.
    up_utilisation : float
        Step up only where the model above would be busy for less than this share.
    down_after_s : float
        Least time on a level before going further down.
    up_after_s : float
        How long load must have been low before going one up.
    worst_share : float
        A tier below the models is a strategy's level once this share of its answers came from it.
    cache_max_age_s : float
        Oldest answer that may be given again; 0 keeps none.
    cache_step : float
        Features that round to the same multiple of it share an answer; 0: only equal features.
    cache_entries : int
        Most answers that are kept.
    """

    deadline_ms: float = 1000.0
    patience_ms: float = 25.0
    down_utilisation: float = 0.95
    up_utilisation: float = 0.7
    down_after_s: float = 0.2
    up_after_s: float = 5.0
    worst_share: float = 0.05
    cache_max_age_s: float = 5.0
    cache_step: float = 0.0
    cache_entries: int = 4096

    def __post_init__(self) -> None:
        if not 0 < self.deadline_ms <= LONGEST_S * 1000:
            raise ConfigError(f"deadline_ms is {self.deadline_ms}: expected up to 60000")
        if not 0 < self.up_utilisation < self.down_utilisation:
            raise ConfigError(
                f"up_utilisation is {self.up_utilisation} and down_utilisation "
                f"{self.down_utilisation}: expected the first to be less, and more than 0"
            )
        for name in ("patience_ms", "down_after_s", "up_after_s", "cache_max_age_s", "cache_step"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected 0 or more")
        if not 0 < self.worst_share <= 1 or self.cache_entries < 1:
            raise ConfigError("worst_share must be in (0, 1] and cache_entries 1 or more")


def tier_names(n_models: int) -> tuple[str, ...]:
    """Return the tiers of a ladder of models, best first; one model alone is the biggest."""
    models = [BIGGEST, *["middle"] * (n_models - 2), "smallest"][:n_models]
    return (*models, CACHED, DELAYED, ABSTAIN)


class Rung(NamedTuple):
    """What asking one model would cost a request now."""

    wait_s: float
    cost_s: float
    is_ready: bool = True


class Choice(NamedTuple):
    """What becomes of a request: the tier's number, the model that computes or -1, and why."""

    tier: int
    model: int
    reason: str


def choose(
    level: int,
    rungs: Sequence[Rung],
    *,
    patience_s: float,
    left_s: float,
    has_cached: bool = False,
    tried: int = 0,
) -> Choice:
    """Return what becomes of one request.

    Parameters
    ----------
    level : int
        Number of the tier that its strategy tries first.
    rungs : sequence of Rung
        The models, biggest first.
    patience_s : float
        Longest queue that counts as no delay.
    left_s : float
        Until the caller's deadline.
    has_cached : bool
        Whether there is an answer to the same question that is not too old.
    tried : int
        Models before this number have had their chance.
    """
    n = len(rungs)
    in_time = [r.is_ready and r.wait_s + r.cost_s <= left_s for r in rungs]
    for model in range(max(min(level, n - 1), tried), n):
        if in_time[model] and rungs[model].wait_s <= patience_s:
            return Choice(model, model, why_fresh(level, model))
    if has_cached:
        return Choice(n, -1, "busy")
    for model in reversed(range(tried, n)):
        if in_time[model]:
            return Choice(n + 1, model, "busy")
    return Choice(n + 2, -1, "no model can answer before the deadline")


def why_fresh(level: int, model: int) -> str:
    """Return the reason that goes with a model's fresh answer, of a strategy on a level."""
    if model == 0:
        return "normal"
    return "load" if model == level else "busy"


class Load(NamedTuple):
    """What was measured of one strategy since the last look.

    Parameters
    ----------
    wait_s : float
        Longest queue delay of a request.
    utilisation : tuple of float
        For each model, biggest first: the share of what the strategy may use that would be busy
        if that model answered all that arrives.
    shares : tuple of float
        Share of the answers that came from ``cached``, ``delayed`` and ``abstain``.
    """

    wait_s: float
    utilisation: tuple[float, ...]
    shares: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Standing(NamedTuple):
    """The level a strategy stands on, since when, since when load is low, and why it moved."""

    level: int = 0
    since_s: float = 0.0
    calm_since_s: float | None = None
    reason: str = "start"


def next_standing(now: Standing, load: Load, policy: LadderPolicy, at_s: float) -> Standing:
    """Return where a strategy stands after a look at its load.

    Down: at once to a tier below the models that already gives a share of the answers; one step
    where the level's model is too busy or its queue too long. Up: one step, once for `up_after_s`
    the queue was short and the model above would not have been busy: by what arrives, and not by
    how idle the smaller model is, so that the step up does not bring the next step down.
    """
    n = len(load.utilisation)
    worst = _worst(load, policy, n)
    if worst > now.level:
        return Standing(worst, at_s, None, "answers came from there")
    if now.level < n and (reason := _too_much(load, now.level, policy)):
        if now.level == n - 1 or at_s - now.since_s < policy.down_after_s:
            return now._replace(calm_since_s=None)
        return Standing(now.level + 1, at_s, None, reason)
    if now.level == 0 or not _is_calm(load, now.level, worst, policy, n):
        return now._replace(calm_since_s=None)
    if now.calm_since_s is None:
        return now._replace(calm_since_s=at_s)
    if at_s - now.calm_since_s < policy.up_after_s:
        return now
    return Standing(now.level - 1, at_s, at_s, "load is low")


def _worst(load: Load, policy: LadderPolicy, n: int) -> int:
    reached = [n + k for k, share in enumerate(load.shares) if share >= policy.worst_share]
    return max(reached, default=0)


def _too_much(load: Load, level: int, policy: LadderPolicy) -> str:
    if load.utilisation[level] > policy.down_utilisation:
        return "the model is too busy"
    return "the queue is too long" if load.wait_s * 1000 > policy.patience_ms else ""


def _is_calm(load: Load, level: int, worst: int, policy: LadderPolicy, n: int) -> bool:
    above = min(level, n) - 1
    return (
        worst < level
        and load.utilisation[above] < policy.up_utilisation
        and load.wait_s * 1000 <= policy.patience_ms / 2
    )
