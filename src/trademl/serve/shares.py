"""Who used how much of something shared, lately, and whose turn it is. Pure but for its sums."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trademl.errors import ConfigError

_MEMORY_S = 1.0  # use counts by e**-1 less for each second that it lies back


@dataclass(frozen=True)
class Quota:
    """What a strategy may count on.

    Parameters
    ----------
    share : float
        Of the processor time, from 0 to 1: a floor that no other strategy's burst takes away,
        and no ceiling while the others leave room.
    priority : int
        Among strategies that are all within, or all beyond, their floors: higher goes first.
    """

    share: float = 0.0
    priority: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"a quota is {self.share}: expected a share from 0 to 1")


_NONE = Quota()


class Shares:
    """Seconds of use by name, fading with time.

    Parameters
    ----------
    quotas : mapping of str to Quota
        Strategies whose quota is 0 share evenly what the others leave.

    Raises
    ------
    ConfigError
        If the quotas add up to more than 1.
    """

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        self._given = dict(quotas)
        self._used_s = dict.fromkeys(quotas, 0.0)
        self._at_s = 0.0
        self._settle()

    def add(self, name: str, quota: Quota) -> None:
        """Let one more strategy share."""
        self._given[name], self._used_s[name] = quota, 0.0
        self._settle()

    def remove(self, name: str) -> None:
        """Let a strategy leave."""
        del self._given[name], self._used_s[name]
        self._settle()

    def _settle(self) -> None:
        if (total := sum(q.share for q in self._given.values())) > 1 + 1e-9:
            raise ConfigError(
                f"the quotas of {', '.join(self._given)} add up to {total:g}: at most 1"
            )
        n_without = sum(q.share == 0 for q in self._given.values())
        rest = max(0.0, 1.0 - total) / max(n_without, 1)
        self._quotas = {n: Quota(q.share or rest, q.priority) for n, q in self._given.items()}
        self.is_shared = len(self._quotas) > 1

    def is_crowding(self, name: str) -> bool:
        """Return whether a strategy took more than its floor while there are others."""
        return self.is_shared and self.is_beyond(name)

    def floor(self, name: str) -> float:
        """Return the share that a strategy may count on."""
        return self._quotas.get(name, _NONE).share

    def charge(self, name: str, seconds: float, now_s: float) -> None:
        """Add a use."""
        if now_s - self._at_s > 0.01:
            fade = math.exp((self._at_s - now_s) / _MEMORY_S)
            for other in self._used_s:
                self._used_s[other] *= fade
            self._at_s = now_s
        if name in self._used_s:  # it may have left while it computed
            self._used_s[name] += seconds

    def used(self, name: str) -> float:
        """Return the strategy's share of what all used lately."""
        total = sum(self._used_s.values())
        return self._used_s.get(name, 0.0) / total if total > 0 else 0.0

    def is_beyond(self, name: str) -> bool:
        """Return whether a strategy used more than its floor."""
        return self.used(name) > self.floor(name) + 1e-9

    def next(self, waiting: Iterable[str]) -> str:
        """Return whose turn it is: who is within its floor, then by priority, then who used least.

        How little is measured against the floor, so that two strategies beyond theirs share what
        is left in proportion.
        """
        return min(waiting, key=self._rank)

    def _rank(self, name: str) -> tuple[bool, int, float]:
        quota = self._quotas.get(name, _NONE)
        used = self.used(name)
        return used > quota.share + 1e-9, -quota.priority, used / max(quota.share, 1e-6)
