"""One request's way: the best region first, another where it is slow or fails, the first answer.

A prediction changes nothing, so that asking twice does no harm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trademl.serve.messages import Request
from trademl.serve.routing.region import Region, RegionError
from trademl.serve.routing.settings import RouteConfig
from trademl.serve.routing.upstream import Response

NO_REGION, TOO_LATE = "no region", "no region answered in time"
_BURST = 50.0  # second questions that were not asked before are saved up to so many


class Outcome(NamedTuple):
    """What came of a request.

    Parameters
    ----------
    response : Response, optional
        None where no region answered; ``reason`` says why.
    region : str
    n_asked : int
        Regions that were asked.
    """

    response: Response | None
    region: str
    reason: str
    n_asked: int


@dataclass
class HedgeBudget:
    """How many second questions may be asked, saved up by requests."""

    share: float
    left: float = _BURST
    n_hedges: int = 0
    n_wins: int = 0

    def save(self) -> None:
        """Count a request."""
        self.left = min(self.left + self.share, _BURST)

    def spend(self) -> bool:
        """Return whether a second question may be asked, and count it."""
        if self.share == 0 or self.left < 1:
            return False
        self.left -= 1
        self.n_hedges += 1
        return True


Task = asyncio.Task[Response]


class Exchange:
    """The regions that one request is sent to.

    Parameters
    ----------
    until_s : float
        The caller's deadline on ``clock``.
    headers : callable
        Given the seconds left, returns the headers to send.
    """

    def __init__(
        self,
        request: Request,
        regions: Sequence[Region],
        config: RouteConfig,
        budget: HedgeBudget,
        *,
        until_s: float,
        headers: Callable[[float], Mapping[bytes, bytes]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request, self._regions, self._config = request, regions, config
        self._budget, self._until_s, self._headers = budget, until_s, headers
        self._clock = clock
        self._asked: list[Region] = []
        self._tasks: dict[Task, Region] = {}
        self._full_s = max(0.0, until_s - clock())

    async def run(self) -> Outcome:
        """Return the first answer, or why there is none."""
        try:
            return await self._run()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:  # so that no failure of theirs is left unread
                await asyncio.wait(self._tasks)
                _ = [task.cancelled() or task.exception() for task in self._tasks]

    async def _run(self) -> Outcome:
        self._budget.save()
        self._ask_next()
        while self._tasks:
            left_s = self._until_s - self._clock()
            patience_s = min(left_s, self._patience_s(left_s))
            done, _ = await asyncio.wait(
                self._tasks, timeout=max(0.0, patience_s), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                region = self._tasks.pop(task)
                if task.cancelled() or task.exception() is not None:
                    self._read(task)
                    continue
                self._budget.n_wins += len(self._asked) > 1 and region is not self._asked[0]
                return Outcome(task.result(), region.name, "", len(self._asked))
            if self._clock() >= self._until_s:
                return Outcome(None, "", TOO_LATE, len(self._asked))
            if not self._tasks:
                self._ask_next()  # it failed: the next one, whatever the budget
            elif not done and self._next() is not None and self._budget.spend():
                self._ask_next()
        return Outcome(None, "", NO_REGION, len(self._asked))

    def _patience_s(self, left_s: float) -> float:
        """Return how long to wait before another region is asked too."""
        if self._next() is None:
            return left_s
        config = self._config
        p95_s = self._asked[-1].latency.p95_s
        share_s = config.hedge_share * left_s
        wanted_s = share_s if p95_s is None else min(p95_s, share_s)
        return min(max(wanted_s, config.hedge_least_ms / 1000), config.hedge_most_ms / 1000)

    def _next(self) -> Region | None:
        now_s = self._clock()
        there = [r for r in self._regions if r not in self._asked and r.is_available(now_s)]
        return min(there, key=lambda region: region.rank(now_s), default=None)

    def _ask_next(self) -> None:
        if (region := self._next()) is not None:
            self._ask(region)

    def _ask(self, region: Region) -> None:
        request, headers = self._request, self._headers(self._until_s - self._clock())
        asking = region.ask(request.method, request.path, headers, request.body, self._full_s)
        self._asked.append(region)
        self._tasks[asyncio.create_task(asking)] = region

    @staticmethod
    def _read(task: Task) -> None:
        """Raise what is no region's failure, so that a defect is not taken for one."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RegionError):
            raise error
