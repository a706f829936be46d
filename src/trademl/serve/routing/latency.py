"""How long a region takes: a mean that a slow answer raises at once, and recent quantiles.

A region's cost is its peak EWMA times the requests that would be in flight (Finagle's least loaded
balancer with peak EWMA): one slow answer is believed at once, and forgotten as time goes by, so
that a region is asked again without anybody's probe.
"""

from __future__ import annotations

import math
from collections import deque

_KEPT = 256
_FEWEST = 20  # answers that a percentile is taken of
_SORTED_EVERY = 16


class Latency:
    """What one region took, in seconds.

    Parameters
    ----------
    decay_s : float
        In this time a value loses all but 1/e of its weight.
    """

    def __init__(self, decay_s: float) -> None:
        self._decay_s = decay_s
        self._peak_s = self._at_s = 0.0
        self._recent: deque[float] = deque(maxlen=_KEPT)
        self._n = 0
        self._p95_s: float | None = None

    def answered(self, seconds: float, now_s: float) -> None:
        """Count an answer."""
        self.took(seconds, now_s)
        self._recent.append(seconds)
        self._n += 1
        if self._n >= _FEWEST and self._n % _SORTED_EVERY == 0:
            self._p95_s = sorted(self._recent)[math.ceil(0.95 * len(self._recent)) - 1]

    def took(self, seconds: float, now_s: float) -> None:
        """Count time that a request took at least, answered or not."""
        value_s = self.value_s(now_s)
        weight = self._weight(now_s)
        mean_s = self._peak_s * weight + seconds * (1 - weight)
        self._peak_s, self._at_s = seconds if seconds > value_s else mean_s, now_s

    def value_s(self, now_s: float) -> float:
        """Return the mean, less what time has taken of it; 0 before the first answer."""
        return self._peak_s * self._weight(now_s)

    @property
    def p95_s(self) -> float | None:
        """The 95th percentile of recent answers, None while there are too few."""
        return self._p95_s

    def _weight(self, now_s: float) -> float:
        return math.exp(-max(0.0, now_s - self._at_s) / self._decay_s)
