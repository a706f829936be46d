"""Which path is answered by whom: one request in, one answer out, whatever the transport.

`/ping`, `/invocations`, `/execution-parameters` and `/models` are SageMaker's container contract.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from urllib.parse import unquote

import orjson

from trademl.serve.live_strategy import LiveStrategy
from trademl.serve.messages import Answer, Request, failure
from trademl.serve.multi_model import MultiModel
from trademl.serve.rows import RequestError, shown
from trademl.serve.settings import MIB, ServerConfig

_log = logging.getLogger(__name__)

# With the largest body allowed, 25 MiB, four at a time stay within SageMaker's 100 MB.
_CONCURRENT_TRANSFORMS = 4
INVOCATIONS = "/invocations"
_STRATEGY, _VARIANT = b"x-trademl-strategy", b"x-amzn-sagemaker-target-variant"
_NAMES = frozenset((_STRATEGY, _VARIANT))

Reply = Answer | asyncio.Future[Answer]
Route = Callable[[Request], Reply]


class Handler:
    """Answers requests; raises nothing.

    Parameters
    ----------
    strategies : mapping of str to LiveStrategy
        By name; the first one answers who names none.
    multi_model : MultiModel, optional
        Models that come and go over HTTP.
    metrics : callable, optional
        Returns the answer that shows all that is measured.
    complaint : callable, optional
        Returns what is wrong with the server as a whole; empty if nothing is.
    """

    def __init__(
        self,
        strategies: Mapping[str, LiveStrategy],
        config: ServerConfig,
        *,
        multi_model: MultiModel | None = None,
        metrics: Callable[[], Reply] | None = None,
        complaint: Callable[[], str] = str,
    ) -> None:
        self._strategies = strategies
        self._default = next(iter(strategies.values()), None)
        self._multi_model, self._complaint = multi_model, complaint
        self._max_payload_mib = max(1, config.max_body_bytes // MIB)
        self._routes: dict[str, Mapping[str, Route]] = {
            INVOCATIONS: {"POST": self._invoke},
            "/ping": {"GET": self._ping},
            "/execution-parameters": {"GET": self._execution_parameters},
        }
        if metrics is not None:
            self._routes["/metrics"] = {"GET": lambda _: metrics()}
        if multi_model is not None:
            self._routes["/models"] = {"GET": multi_model.show_all, "POST": multi_model.load}

    def __call__(self, request: Request) -> Reply:
        """Return the answer to a request; an unexpected failure is logged and answered 500."""
        try:
            routes = self._routes.get(request.path)
            if routes is not None and (route := routes.get(request.method)) is not None:
                reply = route(request)
            else:
                reply = self._answer_elsewhere(request)
        except RequestError as error:
            reply = failure(error.status, str(error))
        except Exception:
            said = {"request_id": request.id.decode("latin-1")}
            _log.exception("%s %s failed", request.method, request.path, extra={"fields": said})
            reply = failure(500, "the server failed to answer: its log says why")
        return reply

    def _answer_elsewhere(self, request: Request) -> Reply:
        routes = self._routes.get(request.path)
        if routes is None and self._multi_model is not None:
            routes = self._multi_model.routes(request.path)
        if routes is None:
            known = ", ".join(self._routes)
            return failure(404, f"no path {shown(request.path)}: expected one of {known}")
        if (route := routes.get(request.method)) is None:
            allowed = ", ".join(routes)
            message = f"{request.path} takes {allowed}, not {request.method}"
            return failure(405, message, allowed)
        return route(request)

    def name_of(self, request: Request) -> str:
        """Return which strategy answers a request; empty if none does."""
        if request.path == INVOCATIONS:
            try:
                return self._strategy(request).name
            except RequestError:
                return ""
        _, _, rest = request.path.partition("/models/")
        return unquote(rest.removesuffix("/invoke")) if request.path.endswith("/invoke") else ""

    def _ping(self, request: Request) -> Answer:
        if complaint := self._complaint():
            return failure(503, complaint)
        strategy = self._strategy(request) if request.headers.get(_STRATEGY) else self._default
        head = b"" if strategy is None else strategy.head
        return Answer(200, content_type="", head=head)

    def _invoke(self, request: Request) -> Reply:
        strategy = self._default
        if strategy is None or not _NAMES.isdisjoint(request.headers):
            strategy = self._strategy(request)
        return strategy.answer(request)

    def _strategy(self, request: Request) -> LiveStrategy:
        named, variant = request.headers.get(_STRATEGY), request.headers.get(_VARIANT)
        given = named or variant
        name = given.decode("latin-1") if given else ""
        strategy = self._strategies.get(name) if given else self._default
        if strategy is None and not named and len(self._strategies) == 1:
            return next(iter(self._strategies.values()))  # SageMaker's own name, and no strategy's
        if strategy is None:
            if not self._strategies:
                raise RequestError(404, "this server has models only: ask /models/{name}/invoke")
            known = ", ".join(self._strategies)
            raise RequestError(404, f"no strategy {shown(name)}: this server has {known}")
        return strategy

    def _execution_parameters(self, _: Request) -> Answer:
        parameters = {
            "MaxConcurrentTransforms": _CONCURRENT_TRANSFORMS,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": self._max_payload_mib,
        }
        return Answer(200, orjson.dumps(parameters))
