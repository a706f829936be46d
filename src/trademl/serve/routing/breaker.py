"""A region's circuit breaker: asked no more after failures in a row, then tried with care.

```
closed --failures in a row--> open --time is up, one request tries--> half open
   ^                            ^                                          |
   +--------success-------------|------------------------------------------+
                                +---------------failure, twice as long-----+
```

Functions of a value: who holds it and which clock there is does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Standing = Literal["closed", "open", "half open"]


@dataclass(frozen=True)
class BreakerPolicy:
    """See `trademl.serve.routing.settings.RouteConfig`."""

    failures: int = 3
    open_s: float = 1.0
    longest_open_s: float = 30.0


@dataclass(frozen=True)
class Breaker:
    """How a region stands.

    Parameters
    ----------
    failures : int
        In a row, while closed.
    until_s : float
        Until then nobody asks; while half open, one who tries is waited for until then.
    n_opened : int
        How often in a row it opened without a success between.
    """

    standing: Standing = "closed"
    failures: int = 0
    until_s: float = 0.0
    n_opened: int = 0


def may_ask(breaker: Breaker, now_s: float) -> bool:
    """Return whether a request may go to the region."""
    return breaker.standing == "closed" or now_s >= breaker.until_s


def asked(breaker: Breaker, now_s: float, policy: BreakerPolicy) -> Breaker:
    """Return how it stands when a request that it allowed is on its way."""
    if breaker.standing == "closed":
        return breaker
    return replace(breaker, standing="half open", until_s=now_s + policy.open_s)


def succeeded() -> Breaker:
    """Return how it stands after an answer."""
    return Breaker()


def failed(breaker: Breaker, now_s: float, policy: BreakerPolicy) -> Breaker:
    """Return how it stands after a request that failed."""
    if breaker.standing == "open":
        return breaker  # that request went out before it opened
    failures = breaker.failures + 1
    if breaker.standing == "closed" and failures < policy.failures:
        return replace(breaker, failures=failures)
    pause_s = min(policy.open_s * 2.0**breaker.n_opened, policy.longest_open_s)
    return Breaker("open", failures, now_s + pause_s, min(breaker.n_opened + 1, 30))
