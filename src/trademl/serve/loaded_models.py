"""The models that came over HTTP, in every worker's memory: loaded, unloaded, the same everywhere.

Each worker makes its memory that of the list which all of them share. Whoever changes the list
says so to the others, and waits until each has followed or is gone: a worker that is started again
follows before it accepts a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import orjson

from trademl.errors import ConfigError, StoreError, TrademlError
from trademl.serve.live_strategy import LiveStrategy
from trademl.serve.model_list import Listed, ModelList
from trademl.serve.model_pool import Held, ModelFile, ModelPool, NoRoomError
from trademl.serve.placement import CPU
from trademl.serve.serving_folder import SERVING_FILE, model_files, read_serving
from trademl.serve.strategies import ServedStrategy

LOAD, UNLOAD = b"load", b"unload"  # what workers tell each other once the list is another
PATIENCE_S = 300.0  # for a worker that loads a model; one that hangs is replaced long before

Tell = Callable[[bytes, float], Awaitable[Mapping[int, bytes | None]]]


class Failed(NamedTuple):
    """Why a model is not in memory: status of the answer, and its message."""

    status: int
    message: str


@dataclass(eq=False)
class Entry:
    """A model of the list as this process holds it; no strategy while it is not in memory."""

    loading: str
    held: Held
    described: ServedStrategy
    strategy: LiveStrategy | None = None
    failed: Failed | None = None


async def no_others(_: bytes, __: float) -> Mapping[int, bytes | None]:
    """Tell nobody: of a server of one process."""
    return {}


class LoadedModels:
    """The models by name; each is a strategy of one model.

    Parameters
    ----------
    open_strategy, close_strategy : callable
        Make a strategy of a model that is in memory, as it is described, and end it.
    models : ModelList
        Which models there are, for all workers.
    tell : callable
        Says a word to each other worker, and returns by number what `follow` returned there; None
        of one that failed or was silent for so many seconds, nothing of one that is gone.
    """

    def __init__(
        self,
        pool: ModelPool,
        open_strategy: Callable[[str, Held, ServedStrategy], LiveStrategy],
        close_strategy: Callable[[str], None],
        models: ModelList,
        tell: Tell,
    ) -> None:
        self._pool, self._list, self._tell = pool, models, tell
        self._open, self._close = open_strategy, close_strategy
        self._listed: dict[str, Listed] = {}
        self._entries: dict[str, Entry] = {}

    def find(self, name: str) -> Listed | None:
        """Return a model that every worker has loaded; None where there is no such."""
        self._look()
        listed = self._listed.get(name)
        return listed if listed is not None and listed.is_ready else None

    def ready(self) -> dict[str, Listed]:
        """Return the models that every worker has loaded."""
        self._look()
        return {name: listed for name, listed in self._listed.items() if listed.is_ready}

    def entry(self, name: str) -> Entry:
        """Return what this process holds of a model that was found."""
        return self._entries[name]

    async def load(self, name: str, wanted: Listed) -> Failed | None:
        """Load a model in every worker; return why it cannot be.

        Raises
        ------
        OSError
            If the list cannot be written.
        """
        async with self._list.change():
            ready = await self._settled()
            if name in ready:
                return Failed(409, f"model {name} is loaded already: unload it first")
            try:
                described_model(name, wanted)
            except TrademlError as error:
                return Failed(400, str(error))
            entry = self._add(name, wanted)
            try:
                return await self._load_everywhere(name, entry, wanted, ready)
            finally:
                if self.find(name) is None:
                    self._drop(name, entry)

    async def unload(self, name: str) -> bool:
        """Unload a model from every worker; return whether there was one.

        Raises
        ------
        OSError
            If the list cannot be written.
        """
        async with self._list.change():
            ready = await self._settled()
            if ready.pop(name, None) is None:
                return False
            await self._put_out(ready)
            return True

    async def follow(self, word: bytes) -> bytes:
        """Do what the list says; return as JSON, by name, what could not be loaded."""
        self._look()
        failed = {}
        for name, entry in tuple(self._entries.items()) if word == LOAD else ():
            if found := await self.ensure(name, entry):
                failed[name] = tuple(found)
        return orjson.dumps(failed)

    async def ensure(self, name: str, entry: Entry) -> Failed | None:
        """Have a model in memory; return why it cannot be, which is tried again after a while."""
        if entry.strategy is not None:
            return None
        if entry.failed is not None and self._pool.has_just_failed(entry.held):
            return entry.failed
        try:
            await self._pool.begin(entry.held)
        except (TrademlError, MemoryError) as error:
            has_room = isinstance(error, TrademlError) and not isinstance(error, NoRoomError)
            entry.failed = Failed(400 if has_room else 507, str(error) or "out of memory")
            return entry.failed
        except asyncio.CancelledError:
            if self._entries.get(name) is entry:
                raise
        if self._entries.get(name) is not entry:
            return Failed(409, f"model {name} was unloaded while it was being loaded")
        if entry.strategy is None:  # of all that waited, the first
            entry.strategy = self._open(name, entry.held, entry.described)
        return None

    def close(self) -> None:
        """Let go of the list."""
        self._list.close()

    # One change at a time, of all workers

    async def _load_everywhere(
        self, name: str, entry: Entry, wanted: Listed, ready: dict[str, Listed]
    ) -> Failed | None:
        """Load a model here, so that a bad one is refused once, then in the other workers."""
        if failed := await self.ensure(name, entry):
            return failed
        wanted = wanted._replace(sha256=entry.held.sha256)
        self._list.write(ready | {name: wanted})
        if failed := await self._failed_elsewhere(name):
            await self._put_out(ready)
            return failed
        self._list.write(ready | {name: wanted._replace(is_ready=True)})
        return None

    async def _failed_elsewhere(self, name: str) -> Failed | None:
        found = []
        for worker, said in (await self._tell(LOAD, PATIENCE_S)).items():
            if said is None:
                found.append(Failed(507, f"worker {worker} cannot load {name}: its log says why"))
            elif failed := orjson.loads(said).get(name):
                found.append(Failed(failed[0], f"worker {worker}: {failed[1]}"))
        return max(found, default=None)

    async def _settled(self) -> dict[str, Listed]:
        """Return what is loaded, rid of what a worker was loading when it died."""
        ready = self.ready()
        if len(ready) < len(self._listed):
            await self._put_out(ready)
        return ready

    async def _put_out(self, left: Mapping[str, Listed]) -> None:
        """Leave these in the list; return once the others are out of every worker's memory."""
        self._list.write(left)
        self._look()
        await self._tell(UNLOAD, PATIENCE_S)

    # What this process holds

    def _look(self) -> None:
        """Let go of what the list no longer has, and know of what it has anew."""
        listed = self._list.news()
        if listed is None:
            return
        self._listed = listed
        for name, entry in tuple(self._entries.items()):
            if name not in listed or listed[name].loading != entry.loading:
                self._drop(name, entry)
        for name, wanted in listed.items():
            if name not in self._entries:
                self._add(name, wanted)

    def _add(self, name: str, wanted: Listed) -> Entry:
        try:
            described = described_model(name, wanted)
        except TrademlError:  # its files were changed: to load them says so
            described = _bare(name, wanted)
        (file,) = model_files(described)
        held = self._pool.add(file, is_pinned=True)
        self._entries[name] = Entry(wanted.loading, held, described)
        return self._entries[name]

    def _drop(self, name: str, entry: Entry) -> None:
        if self._entries.get(name) is entry:
            del self._entries[name]
            if entry.strategy is not None:
                self._close(name)
            self._pool.remove(entry.held)


def described_model(name: str, wanted: Listed) -> ServedStrategy:
    """Return how a model is served: as the ``serving.json`` of its folder says, else bare.

    Raises
    ------
    ConfigError, StoreError
        If that file cannot be read, lists more than one model, or one for a graphics card.
    """
    folder = Path(wanted.path)
    if not (folder / SERVING_FILE).is_file():
        return _bare(name, wanted)
    strategies = read_serving(folder)
    files = [file for strategy in strategies for file in model_files(strategy)]
    if len(files) > 1:
        raise ConfigError(
            f"{folder / SERVING_FILE} lists {len(files)} models, expected one: a ladder is served "
            "from model/, not from a model that is loaded over HTTP"
        )
    if files[0].device != CPU:
        raise ConfigError(
            f"{files[0].id} has device {files[0].device!r}: models that are loaded over HTTP "
            "compute on the processor"
        )
    if not Path(files[0].location).resolve().is_relative_to(folder):
        raise StoreError(f"{files[0].location} leads out of {folder}")
    file = replace(files[0], sha256=wanted.sha256 or files[0].sha256)
    return replace(strategies[0], ladder=(file,))


def _bare(name: str, wanted: Listed) -> ServedStrategy:
    return ServedStrategy(name, (ModelFile(name, wanted.path, wanted.sha256),))
