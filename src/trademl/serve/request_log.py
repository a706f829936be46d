"""Which requests are logged: every error, whoever sends an id of its own, and a sample of the rest.

A server may answer twenty thousand requests a second; a line for each would cost more than the
answers. So lines of successes have a rate, and the next one says how many were left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import orjson

from trademl.serve.messages import Answer, Request

BY_ID_PER_S = 100.0  # of requests with an id of the caller's own: gateways add one to each
_QUIET = frozenset(("/ping", "/metrics"))  # asked again and again, by machines
_SHOWN = {
    b"X-Trademl-Tier": "tier",
    b"X-Trademl-Model": "model",
    b"X-Trademl-Reason": "reason",
    b"X-Trademl-Queue-Ms": "queue_ms",
    b"X-Trademl-Region": "region",  # of a route
}

_log = logging.getLogger(__name__)


class Rate:
    """Allows so many a second, and as many at once.

    Examples
    --------
    >>> rate = Rate(2.0)
    >>> [rate.allows(now_s) for now_s in (0.0, 0.0, 0.0, 0.5, 0.5)]
    [True, True, False, True, False]
    """

    def __init__(self, per_s: float) -> None:
        self._per_s, self._most = per_s, max(per_s, 1.0) if per_s else 0.0
        self._left, self._at_s = self._most, 0.0

    def allows(self, now_s: float) -> bool:
        """Return whether one more may be now; it then counts."""
        passed_s = max(0.0, now_s - self._at_s)
        self._left = min(self._most, self._left + passed_s * self._per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class RequestLog:
    """Logs requests.

    Parameters
    ----------
    per_s : float
        Successes a second that are logged although their callers sent no id.
    """

    def __init__(self, per_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._rate, self._rate_by_id = Rate(per_s), Rate(BY_ID_PER_S)
        self._n_left_out = 0

    def see(self, request: Request, answer: Answer, strategy: str) -> None:
        """Log a request, or count it as left out."""
        now_s = self._now()
        if answer.status < 400 and not self._wants(request, now_s):
            return
        fields = _facts(request, answer, strategy)
        fields["ms"] = round(max(0.0, now_s - request.arrived_s) * 1000, 3)
        if self._n_left_out:
            fields["left_out"], self._n_left_out = self._n_left_out, 0
        _log.log(_level(answer.status), "request", extra={"fields": fields})

    def metrics(self) -> list[str]:
        """Return nothing: what it sees is counted elsewhere."""
        return []

    def close(self) -> None:
        """Nothing is left to do."""

    def _wants(self, request: Request, now_s: float) -> bool:
        if request.path in _QUIET:
            return False
        rate = self._rate_by_id if request.given_id else self._rate
        if rate.allows(now_s):
            return True
        self._n_left_out += 1
        return False


def _level(status: int) -> int:
    return logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR


def _facts(request: Request, answer: Answer, strategy: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "request_id": request.id.decode("ascii"),
        "method": request.method,
        "path": request.path[:200],
        "status": answer.status,
        "strategy": strategy,
        "bytes_in": len(request.body),
        "bytes_out": len(answer.body),
    }
    facts |= said_in(answer)
    if answer.status >= 400:
        facts["error"] = orjson.loads(answer.body).get("error", "") if answer.body else ""
    return {name: value for name, value in facts.items() if value != ""}


def said_in(answer: Answer) -> dict[str, str]:
    """Return what the headers of an answer say of where it came from."""
    found = {}
    for line in answer.head.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name in _SHOWN:
            found[_SHOWN[name]] = value.decode("latin-1")
    return found
