"""A route's life: look at the regions, listen, answer, and on a signal finish what has begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from trademl.serve.access import Access, read_tokens
from trademl.serve.connection import Shared
from trademl.serve.observing import Observed
from trademl.serve.request_log import RequestLog
from trademl.serve.routing.region import Region
from trademl.serve.routing.router import Router
from trademl.serve.routing.settings import Regions
from trademl.serve.server import InThread, answer_until, run_until_signal, tls_context
from trademl.serve.settings import ServerConfig
from trademl.serve.turns import Turns


def route(
    regions: Regions,
    config: ServerConfig | None = None,
    *,
    on_ready: Callable[[str, list[dict[str, Any]]], None] | None = None,
) -> None:
    """Answer requests by asking regional servers, until SIGTERM or SIGINT; then drain and return.

    Call it from the main thread: signals go nowhere else.

    Parameters
    ----------
    on_ready : callable, optional
        Given the route's URL and how each region stands, once it accepts connections.

    Raises
    ------
    ServeError
        If the address cannot be listened on.
    ConfigError
        If a token file or a certificate cannot be used.
    """
    run_until_signal(_Life(regions, config or ServerConfig(), on_ready))


class BackgroundRoute(InThread):
    """The same route in a thread of this process, for as long as a ``with`` block lasts."""

    def __init__(self, regions: Regions, config: ServerConfig | None = None) -> None:
        super().__init__(_Life(regions, config or ServerConfig(port=0)))


class _Life:
    """From a route's settings to its end."""

    def __init__(
        self,
        asked: Regions,
        config: ServerConfig,
        tell: Callable[[str, list[dict[str, Any]]], None] | None = None,
    ) -> None:
        self._config, self._route, self._tell = config, asked.route, tell
        self._regions = [Region(region, asked.route) for region in asked.regions]
        self._access = Access(read_tokens(config.token_file) if config.token_file else ())
        self._tls = tls_context(config)

    async def run(self, stop: asyncio.Event, on_ready: Callable[[str], None]) -> None:
        turns = Turns(asyncio.get_running_loop().call_soon)
        router = Router(self._regions, self._route, clock=turns.now)
        await asyncio.gather(*(region.look() for region in self._regions))

        def ready(url: str) -> None:
            on_ready(url)
            if self._tell is not None:
                self._tell(url, router.facts())

        shared = Shared(self._config, router, self._access, turns, on_error=router.count_error)
        if self._config.log_per_s is not None:
            log = RequestLog(self._config.log_per_s)
            observed = Observed(router, router.name_of, [log])
            shared.handler, shared.on_refused = observed, observed.show
        try:
            await answer_until(
                stop, shared, self._tls, ready, [region.watch() for region in self._regions]
            )
        finally:
            for region in self._regions:
                region.close()
