"""What the processes of one server tell each other without a call: a page of shared memory.

Each worker writes when it was last alive and how many connections it has, the process that watches
them how often it replaced each.
Every number is one aligned double with one writer, so that nothing is ever half written.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SILENT_S = 10.0  # after which a worker counts as missing: longer than its replacement takes
_PER_WORKER = 3  # when it was last alive, how often it was replaced, connections
_BYTES = 8


@dataclass(frozen=True)
class WorkerPlace:
    """Where one of several worker processes stands; plain data, to be handed to a new process.

    Parameters
    ----------
    number : int
        Of this worker, from 0.
    count : int
        How many there are.
    socket : int
        Descriptor of the listening socket, inherited.
    lifeline : int
        Descriptor that can be read, without a byte, once the process that started it is gone.
    folder : str
        Holds the board, and a socket of each worker; for this user alone.
    """

    number: int
    count: int
    socket: int
    lifeline: int
    folder: str

    def path_of(self, number: int) -> Path:
        """Return the path of the socket on which a worker answers the others."""
        return Path(self.folder) / f"{number}.sock"


class Board:
    """The page, opened by each process; times are seconds of the system's monotonic clock.

    Raises
    ------
    OSError
        If the file cannot be made or mapped.
    """

    def __init__(
        self, folder: Path | str, count: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.count, self._now = count, now
        size = count * _PER_WORKER * _BYTES
        with (Path(folder) / "board").open("a+b") as file:
            if file.seek(0, 2) < size:
                file.truncate(size)
            self._page = mmap.mmap(file.fileno(), size)
        self._numbers = memoryview(self._page).cast("d")

    def __enter__(self) -> Self:
        """Return the board."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the page."""
        self._numbers.release()
        self._page.close()

    def beat(self, worker: int, n_connections: int = 0) -> None:
        """Say that a worker is alive, and how many connections it has."""
        self._numbers[worker * _PER_WORKER] = self._now()
        self._numbers[worker * _PER_WORKER + 2] = n_connections

    def fewest(self, within_s: float) -> float:
        """Return the fewest connections of any worker that was alive lately; none has infinity."""
        since_s = self._now() - within_s
        alive = [n for n in range(self.count) if self.beat_s(n) >= since_s]
        return min((self._numbers[n * _PER_WORKER + 2] for n in alive), default=math.inf)

    def beat_s(self, worker: int) -> float:
        """Return when a worker was last alive; 0 if it never was."""
        return self._numbers[worker * _PER_WORKER]

    def count_restart(self, worker: int) -> None:
        """Say that a worker was replaced."""
        self._numbers[worker * _PER_WORKER + 1] += 1.0

    def restarts(self, worker: int) -> int:
        """Return how often a worker was replaced."""
        return int(self._numbers[worker * _PER_WORKER + 1])

    def complaint(self) -> str:
        """Return which worker is missing; empty if none is."""
        for worker in range(self.count):
            beat_s = self.beat_s(worker)
            if not beat_s:
                return f"worker {worker} of {self.count} does not answer yet"
            if (silent_s := self._now() - beat_s) > SILENT_S:
                return f"worker {worker} of {self.count} has been silent for {silent_s:.0f} s"
        return ""
