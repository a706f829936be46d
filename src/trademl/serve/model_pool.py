"""Models in memory: loaded when they are needed, within a budget, warm before they answer.

Shape letters: D feature columns.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import logging
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trademl.errors import ServeError, StoreError, TrademlError
from trademl.serve.archives import MAX_UNPACKED_BYTES, check_digest, unpacked_bytes
from trademl.serve.placement import CPU, load_on
from trademl.serve.served import Mode, ServedModel, served
from trademl.store.identity import digest_file

WARM_ROWS = (1, 1, 1, 32)
_log = logging.getLogger(__name__)
RETRY_S = 10.0  # until a model that could not be loaded is tried again


class NoRoomError(ServeError):
    """The models in use leave no room for another one."""


@dataclass(frozen=True)
class ModelFile:
    """Where a model lies and what is known of it.

    Parameters
    ----------
    id : str
        Its name in every answer.
    location : str
        Path of a ``model.tar.gz``, or of a folder of what one holds.
    sha256 : str
        Of the archive, from its manifest; empty where none is known.
    schema_hash : str
        Of the columns that it must take; empty where any will do.
    device : str
        Where it computes; see `trademl.serve.placement`.
    made_at_s : float, optional
        When it was made, in seconds since 1970.
    """

    id: str
    location: str
    sha256: str = ""
    mode: Mode | None = None
    schema_hash: str = ""
    device: str = CPU
    made_at_s: float | None = None


@dataclass(eq=False)
class Held:
    """A model that the pool knows; ``model`` is None while it is not in memory.

    Parameters
    ----------
    row_s : float
        Seconds that one row alone takes, measured when it was loaded.
    used : int
        Grows with each use; the smallest is let go of first.
    is_pinned : bool
        Never let go of.
    sha256 : str
        Of the archive that was loaded; of a folder, of the archive that is made of it.
    on_release : callable
        Told of the model when the pool lets go of it, so that nobody else keeps it in memory.
    """

    file: ModelFile
    model: ServedModel | None = None
    n_bytes: int = 0
    sha256: str = ""
    row_s: float = 0.0
    used: int = 0
    is_pinned: bool = False
    loading: asyncio.Task[ServedModel] | None = None
    failed_at_s: float = -RETRY_S
    on_release: Callable[[ServedModel], None] = lambda _: None

    def release(self) -> None:
        """Let go of the model; its memory is free when its last answer is given."""
        model, self.model = self.model, None
        if model is not None:
            self.on_release(model)


class _Brought(NamedTuple):
    path: Path
    n_bytes: int
    sha256: str


class _Loaded(NamedTuple):
    model: ServedModel
    row_s: float


@dataclass(eq=False)
class ModelPool:
    """The models of one process.

    Parameters
    ----------
    budget_bytes : int
        Most memory that they take together, counted by the size of their unpacked files.
    """

    budget_bytes: int
    executor: Executor
    now: Callable[[], float] = time.monotonic
    _held: list[Held] = field(default_factory=list)
    _uses: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def add(self, file: ModelFile, *, is_pinned: bool = False) -> Held:
        """Make a model known; it is loaded when it is first asked for."""
        held = Held(file, is_pinned=is_pinned)
        self._held.append(held)
        return held

    def remove(self, held: Held) -> None:
        """Let go of a model for good."""
        if held.loading is not None:
            held.loading.cancel()
        held.release()
        self._held.remove(held)

    def touch(self, held: Held) -> None:
        """Say that a model was used."""
        held.used = next(self._uses)

    def wish(self, held: Held) -> None:
        """Begin to load a model where it is not in memory, and did not just fail to load."""
        if held.model is None and held in self._held and not self.has_just_failed(held):
            self.begin(held).add_done_callback(lambda done: done.cancelled() or done.exception())

    def has_just_failed(self, held: Held) -> bool:
        """Return whether a model could not be loaded, and it is too early to try again."""
        return self.now() - held.failed_at_s < RETRY_S

    def begin(self, held: Held) -> asyncio.Task[ServedModel]:
        """Return the task that loads a model; its result is the model, warm."""
        if held.loading is None:
            held.loading = asyncio.get_running_loop().create_task(self._load(held))
        return held.loading

    @property
    def used_bytes(self) -> int:
        """Memory that the models take now."""
        return sum(held.n_bytes for held in self._held if held.model is not None)

    async def _load(self, held: Held) -> ServedModel:
        loop = asyncio.get_running_loop()
        try:
            if held.model is not None:
                return held.model
            with tempfile.TemporaryDirectory(prefix="trademl-model-") as folder:
                brought = await loop.run_in_executor(
                    self.executor, self._bring, held.file, Path(folder)
                )
                held.n_bytes, held.sha256 = brought.n_bytes, brought.sha256
                self._make_room(held)
                loaded = await loop.run_in_executor(
                    self.executor, self._warm, held.file, brought.path
                )
            held.model, held.row_s = loaded
            self.touch(held)
            return loaded.model
        except (TrademlError, OSError) as error:
            held.failed_at_s = self.now()
            _log.warning("model %s is not loaded: %s", held.file.id, error)
            if isinstance(error, OSError):  # a full disk, a file that vanished
                raise StoreError(f"{held.file.location} cannot be read: {error}") from error
            raise
        finally:
            held.loading = None

    def _bring(self, file: ModelFile, folder: Path) -> _Brought:
        path = Path(file.location)
        if path.is_dir():
            path = _packed(path, folder)
        if file.sha256:
            check_digest(path, file.sha256)
        n_bytes = unpacked_bytes(path, most=max(self.budget_bytes, MAX_UNPACKED_BYTES // 1024))
        return _Brought(path, n_bytes, file.sha256 or digest_file(path))

    def _warm(self, file: ModelFile, path: Path) -> _Loaded:
        loaded = load_on(path, file.device)
        if file.schema_hash and loaded.schema_hash != file.schema_hash:
            raise StoreError(f"{file.id} takes other columns than the smallest model of its ladder")
        model = served(loaded, file.id, mode=file.mode)
        try:
            return _Loaded(model, measure(model))
        except Exception as error:  # a model is what it is: one that raises must end no loop
            raise StoreError(f"{file.id} cannot score a row of zeros: {error}") from error

    def _make_room(self, wanted: Held) -> None:
        there = [h for h in self._held if h is not wanted and (h.model or h.loading)]
        free = self.budget_bytes - sum(h.n_bytes for h in there)
        leaving = []
        for held in sorted((h for h in there if h.model), key=lambda h: h.used):
            if free < wanted.n_bytes and not held.is_pinned:
                leaving.append(held)
                free += held.n_bytes
        if free < wanted.n_bytes:
            held_bytes, wanted.n_bytes = wanted.n_bytes, 0
            raise NoRoomError(
                f"{wanted.file.id} takes {held_bytes} bytes, the models that must stay leave "
                f"{free} of {self.budget_bytes}: raise the memory for models, or unload one"
            )
        for held in leaving:
            held.release()


def measure(model: ServedModel) -> float:
    """Let a model score rows of zeros, so that it is warm; return the least seconds of one row."""
    seconds = []
    for n in WARM_ROWS:
        rows_ND = np.zeros((n, model.feature_dim), np.float32)
        began = time.perf_counter()
        model.scores(rows_ND)
        seconds.append((time.perf_counter() - began) / n)
    return min(seconds[: WARM_ROWS.count(1)])


def _packed(folder: Path, beside: Path) -> Path:
    """Return an archive of what a folder holds, as it was before the platform unpacked it.

    The same files make the same bytes.
    """
    inside = folder / "model.tar.gz"
    if inside.is_file():
        return inside
    path = beside / "model.tar.gz"

    def only_files(entry: tarfile.TarInfo) -> Any:
        entry.mtime = 0
        return entry if entry.isfile() or entry.isdir() else None

    with (
        gzip.GzipFile(path, "wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for file in sorted(folder.iterdir()):
            tar.add(file, arcname=file.name, filter=only_files)
    return path
