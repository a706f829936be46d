"""Several worker processes behind one address: started, watched, replaced, ended together.

The parent opens the socket and loads nothing: each worker is a fresh interpreter that inherits the
socket. A worker that dies leaves the connections that nobody has accepted yet to the others.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType

from trademl.errors import ConfigError, ServeError
from trademl.serve.board import Board, WorkerPlace
from trademl.serve.command import MAX_WORKERS
from trademl.serve.listening import open_socket, url_of
from trademl.serve.settings import ServerConfig

_LOOK_S = 0.05
_GRACE_S = 2.5  # beyond the time to drain, until a worker is killed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestartPolicy:
    """When a worker that died is started again, and when it is given up.

    Parameters
    ----------
    quick_s : float
        A worker that dies younger than that has died quickly.
    most_quick : int
        Quick deaths in a row after which the whole server gives up.
    first_s, longest_s : float
        Wait after the first quick death; it doubles with each further one, up to the longest.
    start_s : float
        How long a worker may take until it answers.
    hung_s : float
        A worker that gives no sign of life for so long is killed.
    """

    quick_s: float = 30.0
    most_quick: int = 5
    first_s: float = 0.5
    longest_s: float = 30.0
    start_s: float = 300.0
    hung_s: float = 30.0

    def pause_s(self, n_quick: int) -> float:
        """Return how long to wait after so many quick deaths in a row.

        Examples
        --------
        >>> [RestartPolicy().pause_s(n) for n in (0, 1, 2, 3, 9)]
        [0.0, 0.5, 1.0, 2.0, 30.0]
        """
        return min(self.first_s * 2 ** (n_quick - 1), self.longest_s) if n_quick else 0.0


@dataclass
class _Worker:
    """A worker's process, and what became of those before it."""

    place: WorkerPlace
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    due_s: float = 0.0
    n_quick: int = 0


def supervise(
    command: Callable[[WorkerPlace], Sequence[str]],
    config: ServerConfig,
    count: int,
    *,
    on_ready: Callable[[str], None] | None = None,
    policy: RestartPolicy | None = None,
) -> None:
    """Keep worker processes answering at one address until SIGTERM or SIGINT, then drain them.

    Call it from the main thread, before anything heavy is loaded.

    Parameters
    ----------
    command : callable
        Given a place, returns the command line of a process that serves there.
    count : int
        How many workers.
    on_ready : callable, optional
        Given the server's URL once all workers answer.

    Raises
    ------
    ConfigError
        If there cannot be so many.
    ServeError
        If the address cannot be listened on, the first worker does not come up, or a worker dies
        again and again.
    """
    if not 1 <= count <= MAX_WORKERS:
        raise ConfigError(f"{count} workers: expected 1 to {MAX_WORKERS}")
    with (
        open_socket(config.host, config.port) as listening,
        tempfile.TemporaryDirectory(prefix="trademl-serve-") as folder,
        Board(folder, count) as board,
        _lifeline() as lifeline,
    ):
        places = [WorkerPlace(n, count, listening.fileno(), lifeline, folder) for n in range(count)]
        workers = _Workers(command, places, board, policy or RestartPolicy())
        url = url_of(config.host, listening.getsockname()[1], is_https=config.tls_cert is not None)
        with _until_signal() as is_asked_to_stop:
            try:
                if workers.start(is_asked_to_stop):
                    (on_ready or (lambda _: None))(url)
                while not is_asked_to_stop():
                    workers.look()
                    time.sleep(_LOOK_S)
            finally:
                listening.close()  # the workers' copies go with their draining
                workers.end(config.drain_s + _GRACE_S)


class _Workers:
    """The processes; every method is called again and again from one loop."""

    def __init__(
        self,
        command: Callable[[WorkerPlace], Sequence[str]],
        places: Sequence[WorkerPlace],
        board: Board,
        policy: RestartPolicy,
    ) -> None:
        self._command, self._board, self._policy = command, board, policy
        self._workers = [_Worker(place) for place in places]

    def start(self, is_asked_to_stop: Callable[[], bool]) -> bool:
        """Start all, and return True once they answer; False if they are to stop before.

        The first one starts alone, so that what is wrong with the settings is said once, and the
        others find compiled code in its cache.
        """
        first, others = self._workers[:1], self._workers[1:]
        for group, look in ((first, self._expect_first), (others, self.look)):
            for worker in group:
                self._start(worker)
            while not all(map(self._is_ready, group)):
                if is_asked_to_stop():
                    return False
                look()
                time.sleep(_LOOK_S)
        return True

    def _expect_first(self) -> None:
        process = self._workers[0].process
        if process is not None and (code := process.poll()) is not None:
            raise ServeError(f"no worker came up: the first {_end_of(code)}, see above")

    def look(self) -> None:
        """Replace who died and whose time has come; kill who hangs.

        Raises
        ------
        ServeError
            If a worker died too often.
        """
        now_s = time.monotonic()
        for worker in self._workers:
            if worker.process is None:
                if now_s >= worker.due_s:
                    self._start(worker)
            elif (code := worker.process.poll()) is not None:
                self._bury(worker, code, now_s)
            elif (silent_s := self._silence(worker, now_s)) > 0:
                number = worker.place.number
                _log.error("worker %d has been silent for %.0f s: it is killed", number, silent_s)
                worker.process.kill()
                worker.process.wait()

    def end(self, within_s: float) -> None:
        """Let all workers finish what they have begun, and kill who takes too long."""
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            process.terminate()
        until_s = time.monotonic() + within_s
        for process in running:
            try:
                process.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, worker: _Worker) -> None:
        place = worker.place
        worker.started_s = time.monotonic()
        worker.process = subprocess.Popen(  # noqa: S603  # our own command line
            list(self._command(place)),
            stdin=subprocess.DEVNULL,
            pass_fds=(place.socket, place.lifeline),
        )

    def _is_ready(self, worker: _Worker) -> bool:
        return self._board.beat_s(worker.place.number) > worker.started_s

    def _silence(self, worker: _Worker, now_s: float) -> float:
        """Return for how long a worker has been silent, if that is too long; 0 otherwise."""
        since_s, most_s = worker.started_s, self._policy.start_s
        if self._is_ready(worker):
            since_s, most_s = self._board.beat_s(worker.place.number), self._policy.hung_s
        return now_s - since_s if now_s - since_s > most_s else 0.0

    def _bury(self, worker: _Worker, code: int, now_s: float) -> None:
        lived_s = now_s - worker.started_s
        worker.process = None
        worker.n_quick = worker.n_quick + 1 if lived_s < self._policy.quick_s else 0
        said = f"worker {worker.place.number} {_end_of(code)} after {lived_s:.1f} s"
        if worker.n_quick >= self._policy.most_quick:
            raise ServeError(
                f"{said}, death {worker.n_quick} in a row within {self._policy.quick_s:g} s "
                "of its start: its messages above say why; the server gives up"
            )
        pause_s = self._policy.pause_s(worker.n_quick)
        worker.due_s = now_s + pause_s
        self._board.count_restart(worker.place.number)
        _log.error("%s: started again in %.1f s", said, pause_s)


def _end_of(code: int) -> str:
    """Return how a process ended, in words.

    Examples
    --------
    >>> _end_of(-9), _end_of(1)
    ('was ended by SIGKILL', 'ended with code 1')
    """
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


@contextmanager
def _lifeline() -> Iterator[int]:
    """Give a descriptor whose other end closes when this process is gone, however it ends."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def _until_signal() -> Iterator[Callable[[], bool]]:
    """Give a question that is answered True once SIGTERM or SIGINT came."""
    asked: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def place_text(place: WorkerPlace) -> str:
    """Return a place as one word of a command line."""
    return json.dumps(asdict(place), separators=(",", ":"))


def read_place(text: str) -> WorkerPlace:
    """Return the place that `place_text` wrote.

    Raises
    ------
    ConfigError
        If it is something else.
    """
    try:
        return WorkerPlace(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{text!r} is no worker's place: it is for --workers alone") from error
