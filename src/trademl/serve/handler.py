"""What the server answers: one request in, one answer out, whatever the transport.

`/ping`, `/invocations` and `/execution-parameters` are SageMaker's container contract.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson

from trademl.serve.formats import format_response, parse_request
from trademl.serve.rows import RequestError, shown
from trademl.serve.served import ServedModel
from trademl.serve.settings import MIB, ServerConfig

_log = logging.getLogger(__name__)

# With the largest body allowed, 25 MiB, four at a time stay within SageMaker's 100 MB.
_CONCURRENT_TRANSFORMS = 4
_LONGEST_REASONS = 1024


@dataclass(slots=True)
class Request:
    """A request whose body has arrived whole; header values are empty where absent."""

    method: str
    path: str
    body: bytes = b""
    content_type: str = ""
    content_encoding: str = ""
    accept: str = ""


class Answer(NamedTuple):
    """Status, type and body of an answer; ``allow`` names the methods that a path does take."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    allow: str = ""


def failure(status: int, message: str, allow: str = "") -> Answer:
    """Return the answer that tells a client in one line why it gets no other."""
    return Answer(status, orjson.dumps({"error": message}), allow=allow)


class Handler:
    """Answers requests from one model; raises nothing."""

    def __init__(self, model: ServedModel, config: ServerConfig) -> None:
        self._served = model
        self._note = model.note()
        self._threshold = np.float32(model.model.threshold)
        self._dim = model.model.feature_dim
        self._max_payload_mib = max(1, config.max_body_bytes // MIB)
        self._routes: dict[str, tuple[str, Callable[[Request], Answer]]] = {
            "/ping": ("GET", self._ping),
            "/invocations": ("POST", self._invoke),
            "/execution-parameters": ("GET", self._execution_parameters),
        }

    def __call__(self, request: Request) -> Answer:
        """Return the answer to a request; an unexpected failure is logged and answered 500."""
        try:
            return self._answer(request)
        except RequestError as error:
            return failure(error.status, str(error))
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            return failure(500, "the server failed to answer: its log says why")

    def _answer(self, request: Request) -> Answer:
        route = self._routes.get(request.path)
        if route is None:
            known = ", ".join(self._routes)
            return failure(404, f"no path {shown(request.path)}: expected one of {known}")
        method, answer = route
        if request.method != method:
            return failure(405, f"{request.path} takes {method}, not {request.method}", method)
        return answer(request)

    def _ping(self, _: Request) -> Answer:
        return Answer(200, content_type="")

    def _invoke(self, request: Request) -> Answer:
        if request.content_encoding not in ("", "identity"):
            found = shown(request.content_encoding)
            return failure(415, f"content encoding is {found}: send the body as it is")
        features_ND = parse_request(request.content_type, request.body, self._dim)
        score_N = self._served.model.scores(features_ND)
        if not (finite := np.isfinite(score_N)).all():
            row = int(np.argmin(finite)) + 1
            return failure(400, f"row {row} has no finite score: its features are out of range")
        label_N = (score_N >= self._threshold).astype(np.float32)
        content_type, body = format_response(request.accept, score_N, label_N, self._note)
        return Answer(200, body, content_type)

    def _execution_parameters(self, _: Request) -> Answer:
        parameters = {
            "MaxConcurrentTransforms": _CONCURRENT_TRANSFORMS,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": self._max_payload_mib,
        }
        return Answer(200, orjson.dumps(parameters))


def standing_headers(model: ServedModel) -> bytes:
    """Return the header lines that every answer carries: which model, and how it stands."""
    headers = {
        "X-Trademl-Model": model.id,
        "X-Trademl-Mode": model.mode,
        "X-Trademl-Tier": "biggest",
        "X-Trademl-Status": model.status,
    }
    if model.status == "refused":
        headers["X-Trademl-Reasons"] = "; ".join(model.reasons)[:_LONGEST_REASONS]
    return b"".join(
        b"%b: %b\r\n" % (name.encode(), _header_text(value)) for name, value in headers.items()
    )


def _header_text(value: str) -> bytes:
    ascii_only = value.encode("ascii", "replace")
    return bytes(byte if 32 <= byte < 127 else ord(" ") for byte in ascii_only).strip()
