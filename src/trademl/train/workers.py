"""Processes that train a search's trials; one that dies is replaced, and its trials done again.

The splits lie in memory that all of them map. A worker lives until the search ends; it also ends
by itself when the search's own process is gone, however that died.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from trademl import errors
from trademl.errors import TrademlError
from trademl.train.shared_splits import SharedSplits
from trademl.train.trials import TrialResult

if TYPE_CHECKING:
    from trademl.train.batch import Ask, Job

_ATTEMPTS = 3  # of a group of trials whose worker died; then they failed


class WorkerPool:
    """Workers for one search, started when they are first needed.

    Parameters
    ----------
    job : Job
        What every trial shares; its splits are copied once, into memory that workers map.
    n_workers : int
        Groups of trials that train at the same time.
    """

    def __init__(self, job: Job, n_workers: int) -> None:
        self._job = job
        splits = {"train": job.train, "validation": job.validation}
        self._shared = SharedSplits(splits | ({"test": job.test} if job.test else {}))
        self._idle: SimpleQueue[_Worker | None] = SimpleQueue()
        for _ in range(n_workers):
            self._idle.put(None)
        self._threads = ThreadPoolExecutor(n_workers)
        self._lock = threading.Lock()
        self._workers: set[_Worker] | None = set()  # None once the pool is closed

    def run(self, groups: Sequence[Sequence[Ask]]) -> list[list[TrialResult]]:
        """Return the results of each group.

        A group whose worker died is begun anew up to twice; then its trials failed.

        Raises
        ------
        TrademlError
            What a worker refused, as it was raised there.
        """
        return list(self._threads.map(self._run_group, groups))

    def close(self) -> None:
        """End every worker at once and free the shared memory."""
        with self._lock:
            workers, self._workers = self._workers or set(), None
        for worker in workers:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        self._shared.close()

    def _run_group(self, group: Sequence[Ask]) -> list[TrialResult]:
        worker, how = self._idle.get(), ""
        for _ in range(_ATTEMPTS):
            try:
                worker = worker or self._start()
                answer = worker.ask([asdict(ask) for ask in group])
            except _WorkerDiedError as died:
                self._forget(worker)
                worker, how = None, str(died)
            else:
                self._idle.put(worker)
                return self._results(answer)
        self._idle.put(None)
        return [self._failure(ask, how) for ask in group]

    def _start(self) -> _Worker:
        job = self._job
        facts = {
            "objective": asdict(job.objective),
            "columns": job.columns,
            "seed": job.seed,
            "folder": str(job.folder),
        }
        shared = {"fd": self._shared.fd, "splits": self._shared.layout}
        with self._lock:
            if self._workers is None:
                raise _WorkerDiedError("was not started: the search was ended")
            worker = _Worker(facts | shared, self._shared.fd)
            self._workers.add(worker)
        return worker

    def _forget(self, worker: _Worker | None) -> None:
        with self._lock:
            if worker is not None and self._workers is not None:
                self._workers.discard(worker)

    def _results(self, answer: Mapping[str, Any]) -> list[TrialResult]:
        if "error" in answer:
            kind = getattr(errors, answer["error"], TrademlError)
            raise kind(answer["message"])
        return [
            TrialResult(
                **{**facts, "losses": tuple(facts["losses"])},
                direction=self._job.objective.direction,
                model_path=None
                if facts["failure"] is not None
                else self._job.model_path(facts["number"]),
            )
            for facts in answer["results"]
        ]

    def _failure(self, ask: Ask, how: str) -> TrialResult:
        reason = (
            f"its worker process {how}, {_ATTEMPTS} times in a row: if memory ran out, lower "
            "MaxParallelTrainingJobs"
        )
        return TrialResult(
            ask.number, ask.hyperparameters, None, self._job.objective.direction, failure=reason
        )


class _WorkerDiedError(Exception):
    """A worker ended without an answer; the message says how."""


class _Worker:
    """One process of `trademl.train.worker`: a line of JSON in, a line of JSON out."""

    def __init__(self, job: Mapping[str, Any], fd: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trademl.train.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(fd,),
            text=True,
            start_new_session=True,  # Ctrl-C is for the search, which then ends its workers
        )
        self._job = json.dumps(job)

    def ask(self, group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the answer to a group of trials.

        Raises
        ------
        _WorkerDiedError
            If the process ends first.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise _WorkerDiedError("has no pipes")
        with suppress(BrokenPipeError):
            if self._job:
                stdin.write(self._job + "\n")
                self._job = ""
            stdin.write(json.dumps(group) + "\n")
            stdin.flush()
        if not (line := stdout.readline()).endswith("\n"):
            raise _WorkerDiedError(_how_it_ended(self.process.wait()))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """End the process and wait for it."""
        self.process.kill()
        with suppress(BrokenPipeError):
            self.process.communicate()


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
