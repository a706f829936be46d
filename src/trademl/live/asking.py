"""One row, one answer: a ladder of models asked in this process, or a server asked over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from trademl.errors import RefusedError, ServeError
from trademl.etl.recordio import encode_records
from trademl.serve.client import ServerSession
from trademl.serve.engine import Engine
from trademl.serve.formats import JSON, RECORDIO
from trademl.serve.messages import Request
from trademl.serve.settings import ServerConfig
from trademl.serve.strategies import ServedStrategy


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a ladder answered about a row.

    Parameters
    ----------
    score : float or None
        None where it abstained.
    is_yes : bool
        Whether the model that answered takes its score for a yes, by its own threshold.
    tier, model_id, mode, reason : str
        Who answered and why; ``mode`` is live or shadow.
    age_ms : float
        Of an answer that was given before.
    latency_us : float
        From question to answer, by the wall clock.
    """

    score: float | None
    is_yes: bool = False
    tier: str = ""
    model_id: str = ""
    mode: str = ""
    reason: str = ""
    age_ms: float = 0.0
    latency_us: float = 0.0


class Adviser(Protocol):
    """Scores a row for a strategy."""

    def ask(self, features_D: NDArray[np.float32], spread: float) -> Opinion:
        """Return what it says of a row.

        Raises
        ------
        ServeError
            If it can give neither a score nor an abstention.
        """


class LadderHere:
    """A strategy's ladder in this process; use it as a context manager."""

    def __init__(self, strategy: ServedStrategy) -> None:
        self._strategy = strategy
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Self:
        """Load the models; without a bigger one that has no room the others answer.

        Raises
        ------
        StoreError, ServeError
            If the smallest cannot be read, or has no room.
        """
        self._loop.run_until_complete(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._review.cancel()
        self._loop.run_until_complete(asyncio.gather(self._review, return_exceptions=True))
        self._engine.close()
        self._loop.close()

    def ask(self, features_D: NDArray[np.float32], spread: float) -> Opinion:
        return self._loop.run_until_complete(self._ask(features_D, spread))

    async def _start(self) -> None:
        self._engine = Engine([self._strategy], ServerConfig())
        self._handle = await self._engine.start()
        await self._engine.load_all()  # the first decision waits for no model
        self._review = asyncio.create_task(self._engine.review())

    async def _ask(self, features_D: NDArray[np.float32], spread: float) -> Opinion:
        began = time.perf_counter()
        headers = {name.lower().encode(): value.encode() for name, value in _headers(spread)}
        request = Request("POST", "/invocations", encode_records(features_D[None]), headers)
        request.arrived_s = self._engine.turns.now()
        reply = self._handle(request)
        answer = await reply if isinstance(reply, asyncio.Future) else reply
        if answer.status != 200:
            raise ServeError(f"{self._strategy.name} answered {answer.status}: {answer.body!r}")
        return _opinion(BytesParser().parsebytes(answer.head), answer.body, began)


class ServerThere:
    """A strategy's ladder on a model server at an address.

    Parameters
    ----------
    strategy : str
        What the server calls the strategy. A server of several answers for another one where it
        is told none.
    models : container of str
        Ids of those that may answer. A server that does not say which one did is believed.
    ca_file : str
        Certificates (PEM) to trust besides those of the machine.

    Raises
    ------
    ServeError, ConfigError
        If the address is none, or the certificates cannot be read.
    """

    def __init__(
        self,
        url: str,
        strategy: str,
        models: Container[str],
        *,
        token: str = "",
        ca_file: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._url, self._strategy, self._models = url, strategy, models
        self._session = ServerSession(url, timeout_s, ca_file)
        self._more = {"X-Trademl-Strategy": strategy}
        if token:
            self._more["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> Self:
        """Ask whether it is healthy and serves the strategy.

        Raises
        ------
        ServeError
            If it is not, or does not.
        """
        try:
            found, _ = self._session.request("GET", "/ping", b"", **self._more)
        except RefusedError as error:
            if error.status != 404 or "no strategy" not in str(error):
                raise
            raise ServeError(f"{error}; say with --endpoint what it calls the strategy") from error
        self._check(found)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.close()

    def ask(self, features_D: NDArray[np.float32], spread: float) -> Opinion:
        began = time.perf_counter()
        headers = dict(_headers(spread)) | self._more
        body = encode_records(features_D[None])
        found, answer = self._session.request("POST", "/invocations", body, **headers)
        self._check(found)
        return _opinion(found, answer, began)

    def _check(self, headers: Message) -> None:
        """Refuse what is said by a model that is none of the strategy's."""
        model_id = headers.get("X-Trademl-Model", "")
        if model_id and model_id not in self._models:
            raise ServeError(
                f"{self._url} answers for {self._strategy} with {model_id}, which is none of its "
                "models here: ask another server, or give --smaller if it is a smaller one of them"
            )


def _headers(spread: float) -> list[tuple[str, str]]:
    return [
        ("Content-Type", RECORDIO),
        ("Accept", JSON),
        ("X-Trademl-Spread", repr(spread)),
        ("X-Trademl-Feature-Time-Ns", str(time.time_ns())),  # the quote has come just now
    ]


def _opinion(headers: Message, body: bytes, began: float) -> Opinion:
    predictions = orjson.loads(body)["predictions"]
    return Opinion(
        float(np.float32(predictions[0]["score"])) if predictions else None,
        bool(predictions) and predictions[0]["predicted_label"] == 1,
        headers.get("X-Trademl-Tier", ""),
        headers.get("X-Trademl-Model", ""),
        headers.get("X-Trademl-Mode", ""),
        headers.get("X-Trademl-Reason", ""),
        float(headers.get("X-Trademl-Age-Ms", "0")),
        (time.perf_counter() - began) * 1e6,
    )
