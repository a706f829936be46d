"""One region as the route knows it: whether it is there, how long it takes, what it was asked."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from trademl.serve.client import read_token
from trademl.serve.counters import Histogram
from trademl.serve.routing.breaker import Breaker, BreakerPolicy, asked, failed, may_ask, succeeded
from trademl.serve.routing.latency import Latency
from trademl.serve.routing.settings import RegionConfig, RouteConfig
from trademl.serve.routing.upstream import Response, Upstream
from trademl.serve.trust import refusal

_log = logging.getLogger(__name__)

_TIER = b"x-trademl-tier"
_KNOWN = frozenset(status.value for status in HTTPStatus)
_TO_OPEN = 4  # round trips to a region that is away: TCP, TLS (two before 1.3), the question


class RegionError(Exception):
    """A region gave no answer that can be passed on."""


@dataclass
class RegionCounters:
    """What was counted of one region."""

    latency: Histogram = field(default_factory=Histogram)
    n_failures: int = 0
    n_given_up: int = 0  # another region answered first, or the deadline came
    n_health_failures: int = 0


@dataclass
class Failure:
    """Why a region failed last.

    Parameters
    ----------
    is_of_health : bool
        A health check failed, else a request: an answer to another of its kind ends it.
    at_ns, over_at_ns : int
        UTC ns of the failure, and of that answer.
    """

    reason: str
    is_of_health: bool
    at_ns: int
    over_at_ns: int | None = None


class Region:
    """A regional server, its breaker and its latency; lives in one event loop.

    Raises
    ------
    ConfigError
        If its token or its certificates cannot be read.
    """

    def __init__(
        self,
        config: RegionConfig,
        route: RouteConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        token = read_token(Path(config.token_file)) if config.token_file else ""
        self.config, self._route = config, route
        self._clock, self._wall_ns = clock, wall_ns
        self._upstream = Upstream(config.url, token=token, ca_file=config.ca_file)
        self._policy = BreakerPolicy(route.failures, route.open_s, route.longest_open_s)
        self.breaker, self.latency = Breaker(), Latency(route.decay_s)
        self.counters = RegionCounters()
        self.is_up, self._since_ns = False, wall_ns()
        self._failure: Failure | None = None
        self._misses = route.fall  # away until it is first seen
        self._asking: set[asyncio.Task[Any]] = set()
        self._named = {"fields": {"region": config.name}}

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def last_failure(self) -> str:
        """Why it failed last; empty if it never did."""
        return "" if self._failure is None else self._failure.reason

    @property
    def in_flight(self) -> int:
        return len(self._asking)

    def is_available(self, now_s: float) -> bool:
        """Return whether a request may go there."""
        return self.is_up and may_ask(self.breaker, now_s)

    def rank(self, now_s: float) -> tuple[int, float]:
        """Return what is smallest for the region to ask first."""
        return (self.config.priority, self.latency.value_s(now_s) * (1 + self.in_flight))

    async def ask(
        self, method: str, path: str, headers: Mapping[bytes, bytes], body: bytes, full_s: float
    ) -> Response:
        """Return the region's answer.

        Parameters
        ----------
        full_s : float
            What an answer without a decision counts as, so that a region is not liked for
            declining quickly.

        Raises
        ------
        RegionError
            If it gives none, or goes away meanwhile.
        """
        began_s, task = self._clock(), asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine runs in a task)
        if not self.is_up:  # it went away before this task began
            raise RegionError(f"{self.name}: {self.last_failure}")
        self.breaker = asked(self.breaker, began_s, self._policy)
        self._asking.add(task)
        try:
            response = await self._upstream.ask(method, path, headers, body)
            _check(response)
        except (OSError, RegionError) as error:
            raise self._failed(_reason(error)) from error
        except asyncio.CancelledError:
            self._gave_up(began_s)
            if not self.is_up:
                raise RegionError(f"{self.name}: {self.last_failure}") from None
            raise
        finally:
            self._asking.discard(task)
        self._answered(response, began_s, full_s)
        return response

    async def watch(self) -> None:
        """Ask how it is, again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._route.health_every_s)
            was_up = self.is_up
            await self.look()
            if was_up and not self.is_up:
                self._warn(f"is away: {self.last_failure}")
            elif self.is_up and not was_up:
                _log.info("region %s is back", self.name, extra=self._named)

    async def look(self) -> None:
        """Ask once how it is."""
        timeout_s = self._route.health_timeout_s * (1 if self.is_up else _TO_OPEN)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._upstream.ask("GET", "/ping", {})
            if response.status == HTTPStatus.OK:
                self._seen()
                return
            self._missed(f"/ping answered {response.status}")
        except TimeoutError:
            self._missed(f"/ping took more than {timeout_s:g} s")
        except OSError as error:
            self._missed(_reason(error))

    def close(self) -> None:
        """Cut its connections."""
        self._upstream.close()

    def facts(self, now_s: float) -> dict[str, Any]:
        """Return how it stands, safe for JSON; times in UTC, None where there is none."""
        p95_s, failure = self.latency.p95_s, self._failure
        return {
            "name": self.name,
            "url": self.config.url,
            "market": self.config.market,
            "priority": self.config.priority,
            "is_up": self.is_up,
            "since": _in_words(self._since_ns),
            "breaker": self.breaker.standing,
            "is_available": self.is_available(now_s),
            "in_flight": self.in_flight,
            "latency_ms": round(self.latency.value_s(now_s) * 1000, 3),
            "p95_ms": None if p95_s is None else round(p95_s * 1000, 3),
            "answers": self.counters.latency.n,
            "failures": self.counters.n_failures,
            "given_up": self.counters.n_given_up,
            "last_failure": self.last_failure,
            "last_failure_at": failure and _in_words(failure.at_ns),
            "last_failure_over_at": failure and _in_words(failure.over_at_ns),
        }

    def _answered(self, response: Response, began_s: float, full_s: float) -> None:
        now_s = self._clock()
        if self.breaker.standing != "closed":
            _log.info("region %s answers again", self.name, extra=self._named)
        self.breaker = succeeded()
        self._is_over(is_of_health=False)
        self.counters.latency.add(now_s - began_s)
        if response.headers.get(_TIER) == b"abstain":
            self.latency.took(max(full_s, now_s - began_s), now_s)
        else:
            self.latency.answered(now_s - began_s, now_s)

    def _gave_up(self, began_s: float) -> None:
        now_s = self._clock()
        self.latency.took(now_s - began_s, now_s)
        self.counters.n_given_up += 1

    def _failed(self, reason: str) -> RegionError:
        now_s, was_open = self._clock(), self.breaker.standing == "open"
        self.breaker = failed(self.breaker, now_s, self._policy)
        if self.breaker.standing == "open" and not was_open:
            self._warn(f"is not asked for {self.breaker.until_s - now_s:g} s: {reason}")
        self.counters.n_failures += 1
        self._failure = Failure(reason, False, self._wall_ns())
        return RegionError(f"{self.name}: {reason}")

    def _warn(self, what: str) -> None:
        _log.warning("region %s %s", self.name, what, extra=self._named)

    def _seen(self) -> None:
        self._misses = 0
        if not self.is_up:
            self.is_up, self._since_ns = True, self._wall_ns()
        self._is_over(is_of_health=True)

    def _is_over(self, *, is_of_health: bool) -> None:
        failure = self._failure
        if failure is None or failure.is_of_health is not is_of_health:
            return
        if failure.over_at_ns is None:
            failure.over_at_ns = self._wall_ns()

    def _missed(self, reason: str) -> None:
        self._misses += 1
        self.counters.n_health_failures += 1
        self._failure = Failure(reason, True, self._wall_ns())
        if self._misses >= self._route.fall and self.is_up:
            self.is_up, self._since_ns = False, self._failure.at_ns
            self._upstream.drop_idle()
            for task in tuple(self._asking):
                task.cancel()  # whoever waits for it asks another region at once


def _check(response: Response) -> None:
    """Refuse what is no answer of a model server: another one is asked instead."""
    status = response.status
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise RegionError(f"it answered {status}: give its token (token_file)")
    if status == HTTPStatus.TOO_MANY_REQUESTS or status not in _KNOWN:
        raise RegionError(f"it answered {status}")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and _TIER not in response.headers:
        raise RegionError(f"it answered {status}")


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing answers there"
    if isinstance(error, ssl.SSLError):
        return refusal(error)
    return " ".join(str(error).split()) or type(error).__name__


def _in_words(at_ns: int | None) -> str | None:
    """Return a time as ISO 8601, to the millisecond."""
    if at_ns is None:
        return None
    at = datetime.fromtimestamp(at_ns / 1e9, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
