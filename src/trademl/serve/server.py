"""The model server's life: listen, answer, and on a signal finish what has begun.

One thread runs everything: a prediction takes less time than handing it to another thread.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import uvloop

from trademl.errors import ServeError
from trademl.serve.connection import Connection, Shared
from trademl.serve.handler import Handler, standing_headers
from trademl.serve.served import Predictor, ServedModel, served_linear
from trademl.serve.settings import ServerConfig

__all__ = [
    "BackgroundServer",
    "Predictor",
    "ServedModel",
    "ServerConfig",
    "serve",
    "served_linear",
]

_BACKLOG = 1024
_SWEEPS_PER_TIMEOUT = 4
_LONGEST_SWEEP_S = 1.0
_IDLE_GRACE_S = 0.1


def serve(
    model: ServedModel,
    config: ServerConfig | None = None,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Answer requests until SIGTERM or SIGINT, then drain and return.

    Call it from the main thread: signals go nowhere else.

    Parameters
    ----------
    model : ServedModel
        What to serve.
    config : ServerConfig, optional
        Address and limits.
    on_ready : callable, optional
        Given the server's URL once it accepts connections.

    Raises
    ------
    ServeError
        If the address cannot be listened on.
    """
    shared = _shared(model, config or ServerConfig())

    async def until_signal() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await _run(shared, stop, on_ready or (lambda _: None))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signal())


class BackgroundServer:
    """The same server in a thread of this process, for as long as a ``with`` block lasts.

    Raises `ServeError` on entry if the address cannot be listened on.

    Examples
    --------
    >>> with BackgroundServer(model) as server:  # doctest: +SKIP
    ...     predict(server.url, features_ND)
    """

    def __init__(self, model: ServedModel, config: ServerConfig | None = None) -> None:
        self._shared = _shared(model, config or ServerConfig(port=0))
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
            await _run(self._shared, stop, self._ready.set_result)

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(until_stopped())
        except ServeError as error:
            self._ready.set_exception(error)
        finally:
            if not self._ready.done():
                self._ready.set_exception(ServeError("the server ended before it could listen"))


def _shared(model: ServedModel, config: ServerConfig) -> Shared:
    return Shared(config, Handler(model, config), standing_headers(model))


async def _run(shared: Shared, stop: asyncio.Event, on_ready: Callable[[str], None]) -> None:
    listener = await _listen(shared)
    sweeper = asyncio.create_task(_sweep(shared))
    try:
        port = listener.sockets[0].getsockname()[1]
        host = shared.config.host
        host = f"[{host}]" if ":" in host else host
        on_ready(f"http://{host}:{port}")
        await stop.wait()
        await _drain(listener, shared)
    finally:
        sweeper.cancel()
        listener.close()


async def _listen(shared: Shared) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    host, port = shared.config.host, shared.config.port
    try:
        return await loop.create_server(lambda: Connection(shared), host, port, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            advice = "it is in use: stop the other server or choose another port (0: a free one)"
        elif error.errno == errno.EACCES:
            advice = "this user may not: choose a port of 1024 or above"
        else:
            advice = f"{error}: choose an address of this machine"
        raise ServeError(f"cannot listen on {host} port {port}, {advice}") from error


async def _sweep(shared: Shared) -> None:
    """End, again and again, the connections whose time is up."""
    config = shared.config
    shortest_s = min(config.idle_timeout_s, config.read_timeout_s, config.linger_s)
    pause_s = min(max(shortest_s / _SWEEPS_PER_TIMEOUT, 0.01), _LONGEST_SWEEP_S)
    while True:
        await asyncio.sleep(pause_s)
        now = shared.now()
        for connection in tuple(shared.connections):
            connection.expire(now)


async def _drain(listener: asyncio.Server, shared: Shared) -> None:
    """Accept nothing more, finish the requests in flight, give up on what takes too long."""
    shared.is_draining = True
    listener.close()
    deadline = shared.now() + shared.config.drain_s
    await asyncio.sleep(_IDLE_GRACE_S)  # a request may be on its way on an open connection
    for connection in tuple(shared.connections):
        connection.close_if_idle()
    while shared.connections and shared.now() < deadline:
        await asyncio.sleep(0.01)
    for connection in tuple(shared.connections):
        connection.abort()
