"""A running server lets a newly deployed model take over: asked for, loaded, warm, then in place.

Whatever goes wrong on the way leaves the old model in place and is counted: apart, that nobody
could say which model should answer, and that one was named that cannot.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from trademl.errors import LedgerAwayError, TrademlError
from trademl.serve.live_strategy import LiveStrategy, ModelChange
from trademl.serve.model_pool import RETRY_S, ModelFile, ModelPool

Newest = Callable[[str], ModelFile | None]  # the model that an endpoint should be answered with

PATIENCE_S = 10.0
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Follower:
    """Looks again and again which models should answer; runs on the event loop.

    Parameters
    ----------
    newest : callable
        Asked in a thread of its own, so that a database that hangs holds up nothing else, not
        even the end of the process. Raises `LedgerAwayError` where the ledger cannot be read.
    pool : ModelPool
        Loads and keeps the models.
    on_change : callable
        Told of each model that took over.
    every_s : float
        Pause between two looks.
    patience_s : float
        After so long, the ledger counts as away.
    """

    newest: Newest
    pool: ModelPool
    on_change: Callable[[ModelChange], None] = lambda _: None
    every_s: float = 1.0
    patience_s: float = PATIENCE_S
    now: Callable[[], float] = time.monotonic
    _refused: dict[str, tuple[ModelFile | str, float]] = field(default_factory=dict)
    _away: set[str] = field(default_factory=set)
    _asked: asyncio.Future[ModelFile | None] | None = None

    async def run(self, strategies: Mapping[str, LiveStrategy]) -> None:
        """Follow, until cancelled, for strategies by the names of their endpoints."""
        while True:
            await asyncio.sleep(self.every_s)
            for endpoint, strategy in strategies.items():
                try:
                    await self._look(endpoint, strategy)
                except Exception:  # a defect: the server goes on with the models that it has
                    strategy.counters.n_swaps_refused += 1
                    _log.exception("%s: looking for a new model failed", endpoint)

    async def _look(self, endpoint: str, strategy: LiveStrategy) -> None:
        file: ModelFile | None = None
        try:
            file = await self._ask(endpoint)
            if file is None or self._was_refused(endpoint, file):
                return
            if not _is_in_place(strategy, file):
                await self._swap(strategy, file)
        except (LedgerAwayError, TimeoutError) as error:
            strategy.counters.n_ledger_away += 1
            if endpoint not in self._away:
                self._away.add(endpoint)
                _log.warning("%s: the ledger is away, its model stays: %s", endpoint, error)
            return
        except (TrademlError, OSError) as error:  # no room, no disk, no such file, another model
            self._refuse(endpoint, strategy, file or str(error), error)
        else:
            self._refused.pop(endpoint, None)
        self._away.discard(endpoint)

    async def _ask(self, endpoint: str) -> ModelFile | None:
        """Return what the ledger names; one question at a time, however long it takes."""
        if self._asked is not None and not self._asked.done():
            raise TimeoutError("it has not answered the last question yet")
        answer: Future[ModelFile | None] = Future()
        answer.set_running_or_notify_cancel()  # so that the thread may answer who left

        def work() -> None:
            try:
                answer.set_result(self.newest(endpoint))
            except Exception as error:  # whatever it is, it is raised where the answer is awaited
                answer.set_exception(error)

        self._asked = asyncio.wrap_future(answer)
        self._asked.add_done_callback(lambda done: done.cancelled() or done.exception())
        threading.Thread(target=work, name="trademl-follower", daemon=True).start()
        done, _ = await asyncio.wait((self._asked,), timeout=self.patience_s)
        if not done:
            raise TimeoutError(f"no answer within {self.patience_s:g} s")
        return self._asked.result()

    def _was_refused(self, endpoint: str, file: ModelFile) -> bool:
        """Return whether this model was refused a moment ago: a full disk may have room later."""
        what, at_s = self._refused.get(endpoint, ("", 0.0))
        return what == file and self.now() - at_s < RETRY_S

    def _refuse(
        self, endpoint: str, strategy: LiveStrategy, what: ModelFile | str, error: Exception
    ) -> None:
        before, _ = self._refused.get(endpoint, ("", 0.0))
        self._refused[endpoint] = what, self.now()
        if before != what:
            strategy.counters.n_swaps_refused += 1
            _log.warning("%s: no new model takes over: %s", endpoint, error)

    async def _swap(self, strategy: LiveStrategy, file: ModelFile) -> None:
        """Load a model, make it warm, and only then let it take over."""
        old = strategy.followed
        columns = next(h.model.model.schema_hash for h in reversed(strategy.ladder) if h.model)
        wanted = replace(file, schema_hash=columns, device=old.file.device)
        held = self.pool.add(wanted, is_pinned=old.is_pinned)
        try:
            await self.pool.begin(held)
        except BaseException:  # also where the server stops meanwhile
            self.pool.remove(held)
            raise
        strategy.take_over(held)
        self.pool.remove(old)
        _log.warning("%s: model %s takes over from %s", strategy.name, file.id, old.file.id)
        self.on_change(ModelChange(strategy.name, old.file.id, file.id))


def _is_in_place(strategy: LiveStrategy, file: ModelFile) -> bool:
    standing = strategy.followed
    mode = standing.model.mode if standing.model else standing.file.mode
    return (file.id, file.mode) == (standing.file.id, mode)
