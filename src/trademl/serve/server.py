"""The model server's life: listen, answer, and on a signal finish what has begun.

One thread reads, decides and writes; big models compute in others.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Protocol, Self

import uvloop

from trademl.errors import ConfigError, ServeError, TrademlError
from trademl.serve.accepting import Acceptor
from trademl.serve.access import Access, read_tokens
from trademl.serve.connection import Connection, Shared
from trademl.serve.engine import Engine
from trademl.serve.event_writer import EventWriter
from trademl.serve.following import Newest
from trademl.serve.listening import BACKLOG, refused, url_of
from trademl.serve.served import ServedModel
from trademl.serve.settings import ServerConfig
from trademl.serve.strategies import ServedStrategy

__all__ = ["BackgroundServer", "ServedModel", "ServedStrategy", "ServerConfig", "serve"]

Listener = asyncio.Server | Acceptor
Served = ServedModel | ServedStrategy | Sequence[ServedStrategy]

_SWEEPS_PER_TIMEOUT = 4
_LONGEST_SWEEP_S = 1.0
_IDLE_GRACE_S = 0.1
_HANDSHAKE_S = 10.0  # of TLS: who is slower holds a connection that is not counted yet


def serve(
    what: Served,
    config: ServerConfig | None = None,
    *,
    on_ready: Callable[[str], None] | None = None,
    newest: Newest | None = None,
    events: EventWriter | None = None,
) -> None:
    """Answer requests until SIGTERM or SIGINT, then drain and return.

    Call it from the main thread: signals go nowhere else.

    Parameters
    ----------
    what : ServedModel, ServedStrategy or sequence of ServedStrategy
        What to serve; of several strategies the first answers who names none. None at all is a
        server whose models come over HTTP.
    config : ServerConfig, optional
        Address and limits.
    on_ready : callable, optional
        Given the server's URL once it accepts connections.
    newest : callable, optional
        Names the model that a strategy should be answered with; asked again and again, in a thread.
        Another one takes over between two requests once it is loaded and warm; one that cannot be
        loaded does not.
    events : EventWriter, optional
        Takes what happens, for the ledger.

    Raises
    ------
    ServeError
        If the address cannot be listened on, or a model has no room.
    ConfigError
        If the token file or the certificate cannot be used.
    StoreError
        If a model cannot be read.
    """
    run_until_signal(_Life(what, config or ServerConfig(), newest, events), on_ready)


class Life(Protocol):
    """A server from its settings to its end."""

    async def run(self, stop: asyncio.Event, on_ready: Callable[[str], None]) -> None:
        """Answer until ``stop`` is set; give ``on_ready`` the URL once connections are accepted."""


def run_until_signal(life: Life, on_ready: Callable[[str], None] | None = None) -> None:
    """Live in this thread, which must be the main one, until SIGTERM or SIGINT."""

    async def until_signal() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await life.run(stop, on_ready or (lambda _: None))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signal())


class InThread:
    """A server in a thread of this process, for as long as a ``with`` block lasts."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._ready: Future[str] = Future()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._work, name="trademl-serve", daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        """Start the thread and wait until the server accepts connections."""
        self._thread.start()
        self.url = self._ready.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drain the server and wait for its thread."""
        if self._thread.is_alive():
            self._stop()
        self._thread.join()

    def _work(self) -> None:
        async def until_stopped() -> None:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)
            await self._life.run(stop, self._ready.set_result)

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(until_stopped())
        except TrademlError as error:
            self._ready.set_exception(error)
        finally:
            if not self._ready.done():
                self._ready.set_exception(ServeError("the server ended before it could listen"))


class BackgroundServer(InThread):
    """The same server in a thread of this process, for as long as a ``with`` block lasts.

    Raises on entry what `serve` raises.

    Examples
    --------
    >>> with BackgroundServer(model) as server:  # doctest: +SKIP
    ...     predict(server.url, features_ND)
    """

    def __init__(
        self,
        what: Served,
        config: ServerConfig | None = None,
        *,
        newest: Newest | None = None,
        events: EventWriter | None = None,
    ) -> None:
        super().__init__(_Life(what, config or ServerConfig(port=0), newest, events))


class _Life:
    """From a model server's settings to its end."""

    def __init__(
        self,
        what: Served,
        config: ServerConfig,
        newest: Newest | None,
        events: EventWriter | None,
    ) -> None:
        if isinstance(what, ServedModel):
            what = ServedStrategy("default", (what,))
        self._strategies = (what,) if isinstance(what, ServedStrategy) else tuple(what)
        self._config, self._newest, self._events = config, newest, events
        self._access = Access(read_tokens(config.token_file) if config.token_file else ())
        self._tls = tls_context(config)

    async def run(self, stop: asyncio.Event, on_ready: Callable[[str], None]) -> None:
        engine = Engine(self._strategies, self._config, self._events)
        try:
            handler = await engine.start()
            shared = Shared(
                self._config,
                handler,
                self._access,
                engine.turns,
                on_refused=engine.on_refused,
                on_error=engine.count_error,
            )
            if self._config.worker is not None:  # it ends with the process that started it
                asyncio.get_running_loop().add_reader(self._config.worker.lifeline, stop.set)
            beside = [engine.review()]
            if self._newest is not None:
                beside.append(engine.follow(self._newest))
            if self._config.emf_s is not None:
                beside.append(engine.report(self._config.emf_s))
            await answer_until(stop, shared, self._tls, on_ready, beside)
        finally:
            engine.close()


async def answer_until(
    stop: asyncio.Event,
    shared: Shared,
    tls: ssl.SSLContext | None,
    on_ready: Callable[[str], None],
    more: Sequence[Coroutine[Any, Any, None]],
) -> None:
    """Listen and answer until ``stop`` is set, then drain; ``more`` runs as long beside it."""
    tasks = [asyncio.create_task(work) for work in (*more, _sweep(shared))]
    listener = None
    try:
        listener = await _listen(shared, tls)
        port = listener.sockets[0].getsockname()[1]
        on_ready(url_of(shared.config.host, port, is_https=tls is not None))
        await stop.wait()
        await _drain(listener, shared)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if listener is not None:
            listener.close()


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """Return what HTTPS is spoken with, None for HTTP; raise `ConfigError` for unusable files."""
    if config.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{config.tls_cert} and {config.tls_key} are no certificate and its key in PEM form "
            f"({error})"
        ) from error
    return context


async def _listen(shared: Shared, tls: ssl.SSLContext | None) -> Listener:
    loop = asyncio.get_running_loop()
    config = shared.config
    handshake_s = None if tls is None else min(config.read_timeout_s, _HANDSHAKE_S)

    def connect() -> Connection:
        return Connection(shared)

    if config.worker is not None:
        return Acceptor(config.worker, connect, shared.connections, tls, handshake_s)
    try:
        return await loop.create_server(
            connect,
            config.host,
            config.port,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=handshake_s,
        )
    except OSError as error:
        raise refused(config.host, config.port, error) from error


async def _sweep(shared: Shared) -> None:
    """End, again and again, the connections whose time is up."""
    config = shared.config
    shortest_s = min(config.idle_timeout_s, config.read_timeout_s, config.linger_s)
    pause_s = min(max(shortest_s / _SWEEPS_PER_TIMEOUT, 0.01), _LONGEST_SWEEP_S)
    while True:
        await asyncio.sleep(pause_s)
        now = shared.turns.now()
        for connection in tuple(shared.connections):
            connection.expire(now)


async def _drain(listener: Listener, shared: Shared) -> None:
    """Accept nothing more, finish the requests in flight, give up on what takes too long."""
    shared.is_draining = True
    listener.close()
    deadline = shared.turns.now() + shared.config.drain_s
    await asyncio.sleep(_IDLE_GRACE_S)  # a request may be on its way on an open connection
    for connection in tuple(shared.connections):
        connection.close_if_idle()
    while shared.connections and shared.turns.now() < deadline:
        await asyncio.sleep(0.01)
    for connection in tuple(shared.connections):
        connection.abort()
