"""The strategies of one process, made ready before the first request, and what they share."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from trademl.errors import ConfigError, ServeError, TrademlError
from trademl.serve import kernels
from trademl.serve.batches import Batches
from trademl.serve.capture import Capture
from trademl.serve.capture_sinks import open_sink
from trademl.serve.emf import Reporter
from trademl.serve.event_writer import Event, EventKind, EventWriter
from trademl.serve.following import Follower, Newest
from trademl.serve.handler import INVOCATIONS, Handler, Reply
from trademl.serve.live_strategy import LiveStrategy, Machine, ModelChange, TierChange
from trademl.serve.loaded_models import LOAD, UNLOAD, LoadedModels, no_others
from trademl.serve.messages import Answer, Request
from trademl.serve.metrics import CONTENT_TYPE, exposition
from trademl.serve.model_list import ModelList, SharedModelList
from trademl.serve.model_pool import Held, ModelFile, ModelPool, measure
from trademl.serve.multi_model import MultiModel
from trademl.serve.observing import Observed, Observer
from trademl.serve.peers import Peers
from trademl.serve.placement import CPU
from trademl.serve.request_log import RequestLog
from trademl.serve.served import ServedModel
from trademl.serve.settings import ServerConfig
from trademl.serve.shares import Quota, Shares
from trademl.serve.strategies import ServedStrategy
from trademl.serve.turns import Turns

REVIEW_S = 0.1

_log = logging.getLogger(__name__)


class Engine:
    """Everything that lives as long as the server's event loop; make it there.

    Parameters
    ----------
    events : EventWriter, optional
        Takes each step on a ladder, and each model that takes over.
    """

    def __init__(
        self,
        strategies: Sequence[ServedStrategy],
        config: ServerConfig,
        events: EventWriter | None = None,
    ) -> None:
        names = [strategy.name for strategy in strategies]
        if len(set(names)) < len(names):
            raise ConfigError(f"strategies {', '.join(names)}: expected each name once")
        loop = asyncio.get_running_loop()
        quotas = {strategy.name: strategy.quota for strategy in strategies}
        self._config, self._events = config, events
        devices = {CPU: config.slots} | {
            entry.device: 1  # a graphics card runs what comes to it one after the other
            for strategy in strategies
            for entry in strategy.ladder
            if isinstance(entry, ModelFile) and entry.device != CPU
        }
        self._executors = {d: ThreadPoolExecutor(n, f"trademl-{d}") for d, n in devices.items()}
        self._batches = {
            device: Batches(loop, self._executors[device], n, Shares(quotas))
            for device, n in devices.items()
        }
        self._shares = (Shares(quotas), *(batches.shares for batches in self._batches.values()))
        # apart from the threads of big models, so that loading holds up no request
        self._loader = ThreadPoolExecutor(1, "trademl-loader")
        self._pool = ModelPool(config.memory_bytes, self._loader)
        self._machine = Machine(
            Turns(loop.call_soon),
            self._pool,
            self._batches,
            self._shares[0],
            on_change=self._on_step,
        )
        self._asked = tuple(strategies)
        self._live: dict[str, LiveStrategy] = {}
        self._models: LoadedModels | None = None
        self._observed: Observed | None = None
        number = None if config.worker is None else config.worker.number
        self._name_of: Callable[[Request], str] = lambda _: ""
        self._refused: Counter[int] = Counter()  # by status, of requests for no strategy
        self._reporter = Reporter(lambda: self._live, number, n_refused=self._refused.total)
        self._peers = None if config.worker is None else Peers(config.worker, self._metrics)

    @property
    def turns(self) -> Turns:
        """The clock of the loop."""
        return self._machine.turns

    @property
    def on_refused(self) -> Callable[[Request, Answer], None] | None:
        """Shown requests that are answered before they reach the handler; None looks at none."""
        return None if self._observed is None else self._observed.show

    def count_error(self, request: Request, answer: Answer) -> None:
        """Count an answer that is an error, with the strategy that it was meant for."""
        name = self._name_of(request)
        strategy = self._live.get(name if request.path == INVOCATIONS else _inside(name))
        counts = self._refused if strategy is None else strategy.counters.refused
        counts[answer.status] += 1

    async def start(self) -> Callable[[Request], Reply]:
        """Load what must be in memory, and return what answers.

        Raises
        ------
        StoreError, ServeError
            If a model cannot be read, takes other columns than its ladder, or has no room.
        ConfigError, CloudError
            If captured requests cannot go where they should.
        """
        observers = _observers(self._config)
        handler = await self._handler()
        self._name_of = handler.name_of
        if not observers:
            return handler
        self._observed = Observed(handler, handler.name_of, observers)
        return self._observed

    async def _handler(self) -> Handler:
        kernels.warm_up()
        named = {asked.name: await self._open(asked) for asked in self._asked}
        self._live |= named
        folder = self._config.model_folder
        models = self._models = None if folder is None else self._loaded_models()
        metrics: Callable[[], Reply] = self._show_metrics
        complaint: Callable[[], str] = str
        if self._peers is not None:
            await self._peers.listen()
            metrics, complaint = self._peers.metrics, self._peers.complaint
        multi_model = None
        if folder is not None and models is not None:
            await models.follow(LOAD)  # once it can be told of changes, so that it misses none
            multi_model = MultiModel(folder, models)
        return Handler(
            named, self._config, multi_model=multi_model, metrics=metrics, complaint=complaint
        )

    async def load_all(self) -> None:
        """Load every model of the ladders, the biggest last; one that cannot be is logged."""
        for strategy in self._live.values():
            for held in reversed(strategy.ladder):
                if held.model is None:
                    with suppress(TrademlError):
                        await self._pool.begin(held)

    def _loaded_models(self) -> LoadedModels:
        """Return the models that come over HTTP, the same in all workers."""
        if self._config.worker is None or self._peers is None:
            return LoadedModels(self._pool, self._open_loaded, self._close, ModelList(), no_others)
        models = LoadedModels(
            self._pool,
            self._open_loaded,
            self._close,
            SharedModelList(Path(self._config.worker.folder)),
            self._peers.tell,
        )
        for word in (LOAD, UNLOAD):
            self._peers.answer(word, models.follow)
        return models

    async def review(self) -> None:
        """Look at the load again and again, until cancelled."""
        while True:
            await asyncio.sleep(REVIEW_S)
            busy = self._machine.turns.look()
            for strategy in self._live.values():
                strategy.review(busy)

    async def follow(self, newest: Newest) -> None:
        """Let newly deployed models take over, again and again, until cancelled."""
        follower = Follower(newest, self._pool, self._on_model, self._config.follow_s)
        await follower.run({asked.name: self._live[asked.name] for asked in self._asked})

    async def report(self, every_s: float) -> None:
        """Log figures again and again, until cancelled, and then those of the time since."""
        try:
            while True:
                await asyncio.sleep(every_s)
                self._reporter.report()
        finally:
            self._reporter.report()

    def close(self) -> None:
        """Let go of the threads; what still waits for one is not computed."""
        if self._observed is not None:
            self._observed.close()
        self._loader.shutdown(wait=False, cancel_futures=True)
        for executor in self._executors.values():
            executor.shutdown(wait=False, cancel_futures=True)
        if self._peers is not None:
            self._peers.close()
        if self._models is not None:
            self._models.close()

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
            asked.name,
            [*ladder, last],
            self._machine,
            asked.policy,
            asked.freshness,
            followed=asked.followed,
        )

    def _hold(
        self, entry: ServedModel | ModelFile, columns: str = "", *, is_pinned: bool = False
    ) -> Held:
        if isinstance(entry, ModelFile):
            return self._pool.add(replace(entry, schema_hash=columns), is_pinned=is_pinned)
        held = self._pool.add(ModelFile(entry.id, "", made_at_s=entry.made_at_s), is_pinned=True)
        held.model, held.row_s = entry, measure(entry)
        return held

    def _open_loaded(self, name: str, held: Held, described: ServedStrategy) -> LiveStrategy:
        inside = _inside(name)
        for shares in self._shares:
            shares.add(inside, Quota())
        self._live[inside] = LiveStrategy(
            inside, [held], self._machine, described.policy, described.freshness
        )
        return self._live[inside]

    def _close(self, name: str) -> None:
        del self._live[_inside(name)]
        for shares in self._shares:
            shares.remove(_inside(name))

    def _on_step(self, step: TierChange) -> None:
        _log.warning("%s: tier %s -> %s, %s", step.strategy, step.old, step.new, step.reason)
        self._tell(step.strategy, "tier", step.old, step.new, step.reason, step.load._asdict())

    def _on_model(self, change: ModelChange) -> None:
        self._tell(change.strategy, "model", change.old, change.new, "it was deployed", {})

    def _tell(
        self,
        strategy: str,
        kind: EventKind,
        old: str,
        new: str,
        reason: str,
        facts: dict[str, Any],
    ) -> None:
        if self._events is not None:
            at_ns = self._machine.wall_ns()
            self._events.put(Event(at_ns, strategy, kind, old, new, reason, facts))

    def _show_metrics(self) -> Reply:
        content_type, body = self._metrics()
        return Answer(200, body, content_type)

    def _metrics(self) -> tuple[str, bytes]:
        body = exposition(
            list(self._live.values()),
            self._pool.used_bytes,
            self._events,
            refused=self._refused,
            now_s=self._machine.wall_ns() / 1e9,
        )
        if self._observed is not None:
            body += "".join(f"{line}\n" for line in self._observed.metrics()).encode()
        return CONTENT_TYPE, body


def _observers(config: ServerConfig) -> list[Observer]:
    """Return who is to look on."""
    observers: list[Observer] = []
    if config.log_per_s is not None:
        observers.append(RequestLog(config.log_per_s))
    if config.capture is not None:
        observers.append(Capture(config.capture, open_sink(config.capture.destination)))
    return observers


def _inside(name: str) -> str:
    return f"models/{name}"  # apart from strategies of the same name
