"""What a route answers: predictions of its regions, and how the regions stand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from trademl.serve.handler import INVOCATIONS
from trademl.serve.ladder import LONGEST_S
from trademl.serve.messages import ID_HEADERS, INFERENCE_ID, REQUEST_ID, Answer, Request, failure
from trademl.serve.provenance import Provenance, abstention
from trademl.serve.routing.exchange import Exchange, HedgeBudget, Outcome
from trademl.serve.routing.metrics import CONTENT_TYPE, exposition
from trademl.serve.routing.region import Region
from trademl.serve.routing.settings import RouteConfig
from trademl.serve.rows import RequestError, shown
from trademl.serve.wants import Wants, read_wants

_log = logging.getLogger(__name__)
_DEADLINE, _SENT = b"x-trademl-deadline-ms", b"x-trademl-sent-ns"
_PASSED = frozenset((b"accept", b"content-encoding", b"content-type"))
_PASSED_PREFIXES = (b"x-trademl-", b"x-amzn-sagemaker-")
_REGION = b"X-Trademl-Region: %b\r\n"


class Router:
    """Answers requests by asking regions; raises nothing.

    Parameters
    ----------
    regions : sequence of Region
    clock : callable
        Seconds that only grow: that of the requests' arrivals.
    wall_ns : callable
        UTC ns, for callers who say when they sent a request.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        config: RouteConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._regions, self._config = regions, config
        self._clock, self._wall_ns = clock, wall_ns
        self.budget = HedgeBudget(config.hedge_budget)
        self.n_without_region = 0
        self.refused: Counter[int] = Counter()  # answers that are errors, by status
        self._routes: dict[str, tuple[str, Callable[[Request], Answer | asyncio.Task[Answer]]]] = {
            INVOCATIONS: ("POST", self._forward),
            "/execution-parameters": ("GET", self._forward),
            "/ping": ("GET", self._ping),
            "/regions": ("GET", self._show_regions),
            "/metrics": ("GET", self._show_metrics),
        }

    def __call__(self, request: Request) -> Answer | asyncio.Task[Answer]:
        """Return the answer to a request, or what will be it."""
        if (found := self._routes.get(request.path)) is None:
            known = ", ".join(self._routes)
            return failure(404, f"no path {shown(request.path)}: expected one of {known}")
        method, route = found
        if request.method != method:
            return failure(405, f"{request.path} takes {method}, not {request.method}", method)
        return route(request)

    def name_of(self, request: Request) -> str:
        """Return which strategy a request asks for; empty if it leaves that to the region."""
        return request.header(b"x-trademl-strategy")[:100]

    def count_error(self, _: Request, answer: Answer) -> None:
        """Count an answer that is an error."""
        self.refused[answer.status] += 1

    def facts(self) -> list[dict[str, Any]]:
        """Return how the regions stand, safe for JSON."""
        now_s = self._clock()
        return [region.facts(now_s) for region in self._regions]

    def _forward(self, request: Request) -> Answer | asyncio.Task[Answer]:
        try:
            wants = read_wants(request.headers)
        except RequestError as error:
            return failure(error.status, str(error))
        return asyncio.create_task(self._asked(request, wants))

    async def _asked(self, request: Request, wants: Wants) -> Answer:
        try:
            return self._answer(request, wants, await self._outcome(request, wants))
        except Exception:
            said = {"request_id": request.id.decode("latin-1")}
            _log.exception("%s %s failed", request.method, request.path, extra={"fields": said})
            return failure(500, "the route failed to answer: its log says why")

    async def _outcome(self, request: Request, wants: Wants) -> Outcome:
        deadline_s = wants.deadline_s
        if deadline_s is None:
            deadline_s = self._config.deadline_ms / 1000
        waited_s = self._clock() - request.arrived_s
        if wants.sent_ns is not None:
            since_s = (self._wall_ns() - wants.sent_ns) / 1e9
            waited_s = min(max(waited_s, since_s), LONGEST_S)
        exchange = Exchange(
            request,
            self._regions,
            self._config,
            self.budget,
            until_s=self._clock() + deadline_s - waited_s,
            headers=lambda left_s: self._headers(request, wants, left_s),
            clock=self._clock,
        )
        return await exchange.run()

    def _headers(self, request: Request, wants: Wants, left_s: float) -> Mapping[bytes, bytes]:
        """Return what a region is told: what the caller said, and the time that is left."""
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in _PASSED or (name.startswith(_PASSED_PREFIXES) and name != INFERENCE_ID)
        }
        headers[REQUEST_ID] = request.id  # one id in the logs of both
        headers[_DEADLINE] = b"%.3f" % max(0.0, left_s * 1000)
        if wants.sent_ns is not None:  # what is left counts from now
            headers[_SENT] = b"%d" % self._wall_ns()
        return headers

    def _answer(self, request: Request, wants: Wants, outcome: Outcome) -> Answer:
        response = outcome.response
        if response is None:
            self.n_without_region += 1
            if request.path != INVOCATIONS:  # only a decision can be abstained from
                head = _REGION % b"none"
                return failure(503, f"no answer: {outcome.reason}, see /regions", head=head)
            waited_s = self._clock() - request.arrived_s
            found = Provenance("abstain", outcome.reason, queue_s=waited_s)
            answer = abstention(request, wants, found)
            return answer._replace(head=answer.head + _REGION % b"none")
        head = b"".join(
            b"%b: %b\r\n" % (name.title(), value)
            for name, value in response.headers.items()
            if name.startswith(b"x-trademl-") or name in ID_HEADERS
        )
        return Answer(
            response.status,
            response.body,
            response.headers.get(b"content-type", b"").decode("latin-1"),
            response.headers.get(b"allow", b"").decode("latin-1"),
            head + _REGION % outcome.region.encode(),
        )

    def _ping(self, _: Request) -> Answer:
        now_s = self._clock()
        if any(region.is_available(now_s) for region in self._regions):
            return Answer(200, content_type="")
        return failure(503, "no region is there: see /regions")

    def _show_regions(self, _: Request) -> Answer:
        return Answer(200, orjson.dumps({"regions": self.facts()}))

    def _show_metrics(self, _: Request) -> Answer:
        facts = exposition(
            self._regions, self.budget, self.n_without_region, self.refused, self._clock()
        )
        return Answer(200, facts, CONTENT_TYPE)
