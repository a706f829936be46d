"""One worker among several: it answers for all of them when it is asked for metrics or health.

Each worker shows its own metrics on a socket of the file system, for this user alone; whoever is
asked reads the others' and writes all of them with the label ``worker``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from trademl.errors import ServeError
from trademl.serve.board import Board, WorkerPlace
from trademl.serve.messages import Answer

PATIENCE_S = 1.0  # for a worker that does not show its metrics
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

    async def listen(self) -> None:
        """Show this worker's metrics to the others.

        Raises
        ------
        ServeError
            If the socket cannot be made.
        """
        path = self._place.path_of(self._place.number)
        try:
            path.unlink(missing_ok=True)  # of the worker that was here before
            self._server = await asyncio.start_unix_server(self._show, str(path))
        except OSError as error:
            raise ServeError(f"{path}: workers cannot meet there: {error}") from error

    def complaint(self) -> str:
        """Return which worker is missing; empty if none is."""
        return self._board.complaint()

    def metrics(self) -> asyncio.Future[Answer]:
        """Return, once they have answered, the metrics of all workers."""
        return asyncio.get_running_loop().create_task(self._gather())

    def close(self) -> None:
        """Show nothing more."""
        if self._server is not None:
            self._server.close()

    async def _gather(self) -> Answer:
        content_type, own = self._own()
        others = [n for n in range(self._place.count) if n != self._place.number]
        found = await asyncio.gather(*(_ask(self._place.path_of(n)) for n in others))
        texts = dict(zip(others, found, strict=True)) | {self._place.number: own.decode()}
        body = together(texts, [self._board.restarts(n) for n in range(self._place.count)])
        return Answer(200, body.encode(), content_type)

    async def _show(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._own()[1])
        writer.close()


async def _ask(path: Path) -> str:
    """Return the metrics of another worker; nothing if it does not show them in time."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                return (await reader.read()).decode()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return ""


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
