"""The strategies of one process, made ready before the first request, and what they share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from trademl.errors import ConfigError, ServeError, TrademlError
from trademl.serve import number_text, row_sum
from trademl.serve.batches import Batches
from trademl.serve.handler import Handler
from trademl.serve.live_strategy import LiveStrategy, Machine, TierChange
from trademl.serve.metrics import CONTENT_TYPE, exposition
from trademl.serve.model_pool import Held, ModelFile, ModelPool, measure
from trademl.serve.multi_model import MultiModel
from trademl.serve.served import ServedModel
from trademl.serve.settings import ServerConfig
from trademl.serve.shares import Quota, Shares
from trademl.serve.strategies import ServedStrategy
from trademl.serve.turns import Turns

REVIEW_S = 0.1

Newest = Callable[[str], ModelFile | None]  # the model that a strategy should be answered with

_log = logging.getLogger(__name__)


class Engine:
    """Everything that lives as long as the server's event loop; make it there."""

    def __init__(self, strategies: Sequence[ServedStrategy], config: ServerConfig) -> None:
        names = [strategy.name for strategy in strategies]
        if len(set(names)) < len(names):
            raise ConfigError(f"strategies {', '.join(names)}: expected each name once")
        loop = asyncio.get_running_loop()
        quotas = {strategy.name: strategy.quota for strategy in strategies}
        self._config = config
        self._executor = ThreadPoolExecutor(config.slots, "trademl-model")
        self._shares = (Shares(quotas), Shares(quotas))
        # apart from the threads of big models, so that loading holds up no request
        self._loader = ThreadPoolExecutor(1, "trademl-loader")
        self._pool = ModelPool(config.memory_bytes, self._loader)
        self._machine = Machine(
            Turns(loop.call_soon),
            self._pool,
            Batches(loop, self._executor, config.slots, self._shares[0]),
            self._shares[1],
            on_change=_log_change,
        )
        self._asked = tuple(strategies)
        self._live: dict[str, LiveStrategy] = {}

    @property
    def turns(self) -> Turns:
        """The clock of the loop."""
        return self._machine.turns

    async def start(self) -> Handler:
        """Load what must be in memory, and return what answers.

        Raises
        ------
        StoreError, ServeError
            If a model cannot be read, takes other columns than its ladder, or has no room.
        """
        number_text.warm_up()
        row_sum.warm_up()
        named = {asked.name: await self._open(asked) for asked in self._asked}
        self._live |= named
        multi_model = None
        if self._config.model_folder is not None:
            multi_model = MultiModel(
                self._config.model_folder, self._pool, self._open_loaded, self._close
            )
        return Handler(named, self._config, multi_model=multi_model, metrics=self._metrics)

    async def review(self) -> None:
        """Look at the load again and again, until cancelled."""
        while True:
            await asyncio.sleep(REVIEW_S)
            busy = self._machine.turns.look()
            for strategy in self._live.values():
                strategy.review(busy)

    async def follow(self, newest: Newest) -> None:
        """Let newly named models take over, again and again, until cancelled.

        Parameters
        ----------
        newest : callable
            Called in a thread, with the name of a strategy.
        """
        refused: dict[str, ModelFile | str] = {}
        while True:
            await asyncio.sleep(self._config.follow_s)
            for asked in self._asked:
                await self._follow(self._live[asked.name], newest, refused)

    async def _follow(
        self, strategy: LiveStrategy, newest: Newest, refused: dict[str, ModelFile | str]
    ) -> None:
        loop = asyncio.get_running_loop()
        file: ModelFile | None = None
        try:
            file = await loop.run_in_executor(self._loader, newest, strategy.name)
            if file is None or refused.get(strategy.name) == file:
                return
            standing = strategy.ladder[0]
            mode = standing.model.mode if standing.model else standing.file.mode
            if (file.id, file.mode) != (standing.file.id, mode):
                await self._swap(strategy, file)
            refused.pop(strategy.name, None)
        except TrademlError as error:
            if refused.get(strategy.name) != (what := file or str(error)):
                refused[strategy.name] = what
                strategy.counters.n_swaps_refused += 1
                _log.warning("%s: no new model takes over: %s", strategy.name, error)

    async def _swap(self, strategy: LiveStrategy, file: ModelFile) -> None:
        """Load a model, make it warm, and only then let it take over."""
        old = strategy.ladder[0]
        columns = next(h.model.model.schema_hash for h in reversed(strategy.ladder) if h.model)
        held = self._pool.add(replace(file, schema_hash=columns), is_pinned=old.is_pinned)
        try:
            await self._pool.begin(held)
        except TrademlError:
            self._pool.remove(held)
            raise
        self._pool.remove(strategy.replace_first(held))
        _log.warning("%s: model %s takes over from %s", strategy.name, file.id, old.file.id)

    def close(self) -> None:
        """Let go of the threads; what still waits for one is not computed."""
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _open(self, asked: ServedStrategy) -> LiveStrategy:
        last = self._hold(asked.ladder[-1], is_pinned=True)
        smallest = last.model or await self._pool.begin(last)
        columns = smallest.model.schema_hash
        ladder = [self._hold(entry, columns) for entry in asked.ladder[:-1]]
        for held in ladder:
            if held.model is not None and held.model.model.schema_hash != columns:
                raise ServeError(
                    f"{held.file.id} takes other columns than {smallest.id}: a ladder's models "
                    "take the same"
                )
        return LiveStrategy(
            asked.name, [*ladder, last], self._machine, asked.policy, asked.freshness
        )

    def _hold(
        self, entry: ServedModel | ModelFile, columns: str = "", *, is_pinned: bool = False
    ) -> Held:
        if isinstance(entry, ModelFile):
            return self._pool.add(replace(entry, schema_hash=columns), is_pinned=is_pinned)
        held = self._pool.add(ModelFile(entry.id, ""), is_pinned=True)
        held.model, held.row_s = entry, measure(entry)
        return held

    def _open_loaded(self, name: str, held: Held) -> LiveStrategy:
        inside = _inside(name)
        for shares in self._shares:
            shares.add(inside, Quota())
        self._live[inside] = LiveStrategy(inside, [held], self._machine)
        return self._live[inside]

    def _close(self, name: str) -> None:
        del self._live[_inside(name)]
        for shares in self._shares:
            shares.remove(_inside(name))

    def _metrics(self) -> tuple[str, bytes]:
        return CONTENT_TYPE, exposition(list(self._live.values()), self._pool.used_bytes)


def _inside(name: str) -> str:
    return f"models/{name}"  # apart from strategies of the same name


def _log_change(change: TierChange) -> None:
    _log.warning("%s: tier %s -> %s, %s", change.strategy, change.old, change.new, change.reason)
