"""Which models came over HTTP: one list for all workers of a server.

Several workers keep it in a file that is replaced whole, and change it one at a time, under a lock
that the system takes from a process that dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, NamedTuple

import orjson

_LOOK_S = 0.01


class Listed(NamedTuple):
    """A model of the list.

    Parameters
    ----------
    loading : str
        Names this loading of it: a model that was unloaded and loaded again has another.
    url, path : str
        Where it lies, as the caller said it, and with all links followed.
    sha256 : str
        Of the archive, so that all workers answer with the same.
    is_ready : bool
        Whether every worker has it in memory: before that, nobody is shown it.
    """

    loading: str
    url: str
    path: str
    sha256: str
    is_ready: bool = False


class ModelList:
    """The list of a server of one process; make it on its event loop."""

    def __init__(self) -> None:
        self._news: dict[str, Listed] | None = None
        self._changing = asyncio.Lock()

    def news(self) -> dict[str, Listed] | None:
        """Return the models by name, or None if they are still those that it returned last."""
        news, self._news = self._news, None
        return news

    def write(self, models: Mapping[str, Listed]) -> None:
        """Put other models in the list; only within `change`."""
        self._news = dict(models)

    @asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """Wait for one's turn to change the list, and keep it."""
        async with self._changing:
            yield

    def close(self) -> None:
        """Let go of what it holds open."""


class SharedModelList(ModelList):
    """The list of a server of several processes; ``folder`` is the server's own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path, self._lock = folder / "models.json", folder / "models.lock"
        self._seen: IO[bytes] | None = None
        self._inode = 0

    def news(self) -> dict[str, Listed] | None:
        """Return the models by name, or None if they are still those that it returned last.

        The file that was read last stays open, so that no later one gets its number.
        """
        try:
            if self._path.stat().st_ino == self._inode:
                return None
            file = self._path.open("rb")
        except FileNotFoundError:  # nothing was loaded yet
            return None
        self.close()
        self._seen, self._inode = file, os.fstat(file.fileno()).st_ino
        return {name: Listed(*fields) for name, fields in orjson.loads(file.read()).items()}

    def write(self, models: Mapping[str, Listed]) -> None:
        """Put other models in the list; only within `change`.

        Raises
        ------
        OSError
            If the file cannot be written; the list is then what it was.
        """
        new = self._path.with_suffix(".new")
        new.write_bytes(orjson.dumps({name: tuple(listed) for name, listed in models.items()}))
        new.replace(self._path)

    @asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """Wait until no worker changes the list, and keep the others from it."""
        async with super().change():
            with self._lock.open("wb") as lock:
                while not _is_locked(lock):
                    await asyncio.sleep(_LOOK_S)
                yield

    def close(self) -> None:
        """Let go of the file."""
        if self._seen is not None:
            self._seen.close()


def _is_locked(file: IO[bytes]) -> bool:
    """Return whether nobody else had the lock: it is then ours until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
