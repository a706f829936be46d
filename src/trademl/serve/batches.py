"""Big models compute in threads: requests that wait together are computed together.

A batch is what waits for one model when a thread becomes free; nothing waits for company. All
bookkeeping happens on the event loop, so that there is no lock.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trademl.serve.served import Scores, ServedModel
from trademl.serve.shares import Shares

MAX_ROWS = 256  # of a batch made of several requests; one request may have more
LONGEST_BATCH_S = 0.05  # so that a strategy's turn comes soon
_NEWEST = 0.2  # weight of the newest batch in the average cost


@dataclass(eq=False)
class Job:
    """Rows of one request that wait for a model; ``done`` is set on the event loop."""

    features_ND: NDArray[np.float32]
    done: asyncio.Future[Scores]
    queued_at_s: float
    began_at_s: float = 0.0
    n_waiting: int = 1

    def give_up(self) -> None:
        """Say that one of those who wait no longer does; after the last, it is not computed."""
        self.n_waiting -= 1
        if not self.n_waiting and not self.began_at_s:
            self.done.cancel()


@dataclass(eq=False)
class Lane:
    """What waits for one model of one strategy.

    Parameters
    ----------
    row_s : float
        Average seconds that a row of a batch takes, measured.
    """

    strategy: str
    model: ServedModel
    row_s: float
    jobs: deque[Job] = field(default_factory=deque)
    n_rows: int = 0
    n_running: int = 0
    longest_wait_s: float = 0.0

    def wait_s(self, n_slots: float, now_s: float) -> float:
        """Return how long a request that comes now would wait, if it had ``n_slots`` threads.

        No less than the oldest in the queue waits already: a model that hangs has no average.
        """
        expected_s = (self.n_rows + self.n_running / 2) * self.row_s / n_slots
        return max(expected_s, self.stuck_s(now_s))

    def stuck_s(self, now_s: float) -> float:
        """Return how long the oldest in the queue has been waiting."""
        return now_s - self.jobs[0].queued_at_s if self.jobs else 0.0

    def take(self) -> list[Job]:
        """Remove and return the jobs of the next batch; those given up meanwhile are dropped."""
        batch: list[Job] = []
        n = 0
        most = max(1, min(MAX_ROWS, int(LONGEST_BATCH_S / max(self.row_s, 1e-9))))
        while self.jobs and (not batch or n + len(self.jobs[0].features_ND) <= most):
            job = self.jobs.popleft()
            self.n_rows -= len(job.features_ND)
            if not job.done.done():
                batch.append(job)
                n += len(job.features_ND)
        return batch


class Batches:
    """The threads of one device and the lanes that share them.

    Parameters
    ----------
    n_slots : int
        Batches computed at once.
    shares : Shares
        Whose turn it is.
    now : callable
        Seconds that only grow; the loop's own clock counts whole milliseconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        executor: Executor,
        n_slots: int,
        shares: Shares,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop, self._executor, self._now = loop, executor, now
        self.n_slots, self.shares = n_slots, shares
        self._free = n_slots
        self._lanes: dict[str, deque[Lane]] = {}

    def submit(self, lane: Lane, features_ND: NDArray[np.float32]) -> Job:
        """Queue rows for a lane's model; see `Job.give_up`."""
        job = Job(features_ND, self._loop.create_future(), self._now())
        if not lane.jobs:
            self._lanes.setdefault(lane.strategy, deque()).append(lane)
        lane.jobs.append(job)
        lane.n_rows += len(features_ND)
        self._fill_slots()
        return job

    def slots_of(self, strategy: str) -> float:
        """Return how many threads a strategy may count on: its floor, or all if it is alone."""
        others = any(name != strategy and lanes for name, lanes in self._lanes.items())
        return max(self.n_slots * (self.shares.floor(strategy) if others else 1.0), 1e-3)

    def _fill_slots(self) -> None:
        while self._free and (waiting := [name for name, lanes in self._lanes.items() if lanes]):
            lanes = self._lanes[self.shares.next(waiting)]
            lane = lanes.popleft()
            batch = lane.take()
            if lane.jobs:
                lanes.append(lane)
            if batch:
                self._free -= 1
                self._run(lane, batch)

    def _run(self, lane: Lane, batch: list[Job]) -> None:
        began_s = self._now()
        for job in batch:
            job.began_at_s = began_s
        lane.longest_wait_s = max(lane.longest_wait_s, began_s - batch[0].queued_at_s)
        parts = [job.features_ND for job in batch]
        rows_ND = parts[0] if len(parts) == 1 else np.concatenate(parts)
        lane.n_running += len(rows_ND)
        running = self._loop.run_in_executor(self._executor, lane.model.scores, rows_ND)
        running.add_done_callback(lambda done: self._finish(lane, batch, began_s, done))

    def _finish(
        self, lane: Lane, batch: list[Job], began_s: float, done: asyncio.Future[Scores]
    ) -> None:
        self._free += 1
        seconds = self._now() - began_s
        n = sum(len(job.features_ND) for job in batch)
        lane.n_running -= n
        lane.row_s += _NEWEST * (seconds / n - lane.row_s)
        self.shares.charge(lane.strategy, seconds, began_s + seconds)
        error = None if done.cancelled() else done.exception()
        start = 0
        for job in batch:
            stop = start + len(job.features_ND)
            if job.done.done():
                pass  # nobody waits for it any more
            elif done.cancelled():
                job.done.cancel()
            elif error is not None:
                job.done.set_exception(error)
            else:
                job.done.set_result(done.result().part(start, stop))
            start = stop
        self._fill_slots()
