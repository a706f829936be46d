"""One worker among several: it answers for all of them, and tells them what it was told.

Each worker listens on a socket of the file system, for this user alone, for a line of one word.
Asked for metrics it shows its own; whoever was asked over HTTP reads the others' and writes all of
them with the label ``worker``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from trademl.errors import ServeError
from trademl.serve.board import Board, WorkerPlace
from trademl.serve.messages import Answer

PATIENCE_S = 1.0  # for a worker that does not show its metrics
_METRICS = b"metrics"
_DONE, _FAILED = b"+", b"-"  # first byte of what a worker answers
_log = logging.getLogger(__name__)
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


class Peers:
    """The workers of one server, seen from one of them; make it on its event loop.

    Parameters
    ----------
    own : callable
        Returns the content type and the metrics of this worker.
    """

    def __init__(self, place: WorkerPlace, own: Callable[[], tuple[str, bytes]]) -> None:
        self._place, self._own = place, own
        self._board = Board(place.folder, place.count)
        self._server: asyncio.Server | None = None
        self._answers: dict[bytes, Callable[[bytes], Awaitable[bytes]]] = {_METRICS: self._shown}

    def answer(self, word: bytes, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Let this worker answer a word of the others."""
        self._answers[word] = answer

    async def listen(self) -> None:
        """Answer the other workers.

        Raises
        ------
        ServeError
            If the socket cannot be made.
        """
        path = self._place.path_of(self._place.number)
        try:
            path.unlink(missing_ok=True)  # of the worker that was here before
            self._server = await asyncio.start_unix_server(self._hear, str(path))
        except OSError as error:
            raise ServeError(f"{path}: workers cannot meet there: {error}") from error

    def complaint(self) -> str:
        """Return which worker is missing; empty if none is."""
        return self._board.complaint()

    async def tell(self, word: bytes, patience_s: float) -> dict[int, bytes | None]:
        """Say a word to all other workers; return by number what each answered.

        One that is gone, or that dies before it has answered, is left out; None is of one that was
        silent for too long, or failed, as its log says.
        """
        others = [n for n in range(self._place.count) if n != self._place.number]
        asked = (_ask(self._place.path_of(n), word, patience_s) for n in others)
        found = zip(others, await asyncio.gather(*asked), strict=True)
        return {
            number: said.removeprefix(_DONE) if said.startswith(_DONE) else None
            for number, said in found
            if said
        }

    def metrics(self) -> asyncio.Future[Answer]:
        """Return, once they have answered, the metrics of all workers."""
        return asyncio.get_running_loop().create_task(self._gather())

    def close(self) -> None:
        """Show nothing more."""
        if self._server is not None:
            self._server.close()

    async def _gather(self) -> Answer:
        content_type, own = self._own()
        found = await self.tell(_METRICS, PATIENCE_S) | {self._place.number: own}
        texts = {n: (found.get(n) or b"").decode() for n in range(self._place.count)}
        body = together(texts, [self._board.restarts(n) for n in range(self._place.count)])
        return Answer(200, body.encode(), content_type)

    async def _shown(self, _: bytes) -> bytes:
        return self._own()[1]

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = b""
        try:
            word = (await reader.readline()).strip()
            writer.write(_DONE + await self._answers[word](word))
        except Exception:  # whoever asked must not take this worker for one that is gone
            _log.exception("another worker's %s failed", word.decode("latin-1"))
            writer.write(_FAILED)
        finally:
            writer.close()


async def _ask(path: Path, word: bytes, patience_s: float) -> bytes:
    """Return what another worker says; nothing if it is gone."""
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(word + b"\n")
                return await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        return _FAILED
    except OSError:
        return b""


def together(texts: Mapping[int, str], restarts: list[int]) -> str:
    """Return the metrics of several workers as one exposition, each sample with its worker.

    Parameters
    ----------
    texts : mapping of int to str
        What each worker shows, in Prometheus' text format; empty from one that is silent.
    restarts : list of int
        How often each worker was replaced.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker in sorted(texts):
        family = ""
        for line in texts[worker].splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
                if family not in heads:
                    heads[family], samples[family] = [], []
            if line.startswith("#"):
                if line not in heads[family]:
                    heads[family].append(line)
            elif (match := _SAMPLE.fullmatch(line)) is not None:
                samples[family].append(_of_worker(match, worker))
    lines = [line for family in heads for line in (*heads[family], *samples[family])]
    return "\n".join([*lines, *_about_workers(texts, restarts), ""])


def _of_worker(sample: re.Match[str], worker: int) -> str:
    name, labels, value = sample.groups()
    return f'{name}{{worker="{worker}"{"," if labels else ""}{labels or ""}}} {value}'


def _about_workers(texts: Mapping[int, str], restarts: list[int]) -> list[str]:
    lines = [
        "# HELP trademl_worker_up Whether a worker process shows its metrics.",
        "# TYPE trademl_worker_up gauge",
    ]
    lines += [f'trademl_worker_up{{worker="{n}"}} {int(bool(texts[n]))}' for n in sorted(texts)]
    lines += [
        "# HELP trademl_worker_restarts_total Worker processes that were replaced.",
        "# TYPE trademl_worker_restarts_total counter",
    ]
    lines += [
        f'trademl_worker_restarts_total{{worker="{n}"}} {count}' for n, count in enumerate(restarts)
    ]
    return lines
