"""What every answer says of itself: tier, model, age, time in queues and reason.

Shape letters: N rows.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from trademl.serve.formats import format_nothing, format_response
from trademl.serve.messages import ID_HEADERS, Answer, Request, failure
from trademl.serve.served import Scores, ServedModel, header_text
from trademl.serve.wants import ATTRIBUTES, Wants

_SAID_OF_ABSTENTION = ID_HEADERS | {b"accept", b"x-trademl-on-abstain", ATTRIBUTES}


class Provenance(NamedTuple):
    """Where an answer came from.

    Parameters
    ----------
    tier, reason : str
        Which tier of the ladder, and why it and no better one.
    age_s : float
        Time since the answer was made; 0 for a fresh one.
    queue_s : float
        From the request's arrival to the beginning of its computation.
    """

    tier: str
    reason: str
    age_s: float = 0.0
    queue_s: float = 0.0


def decision(
    request: Request, wants: Wants, model: ServedModel, scores: Scores, found: Provenance
) -> Answer:
    """Return the answer that carries a model's scores, or says which row has none."""
    if not _is_finite(scores):
        finite_N = np.isfinite(scores.score_N).reshape(len(scores.score_N), -1).all(axis=1)
        row = int(np.argmin(finite_N)) + 1
        return failure(400, f"row {row} has no finite score: its features are out of range")
    notes = {}
    if (note := model.note()) is not None:
        notes["model"] = note
    request_id = request.id
    if wants.wants_reasons:
        notes["trademl"] = _in_body(found, model.id, request_id)
    content_type, body = format_response(request.header(b"accept"), scores, notes)
    return Answer(200, body, content_type, head=_headers(found, request_id, model.head))


def _is_finite(scores: Scores) -> bool:
    if scores.score_N.size == 1:  # the common case, and numpy takes ten times as long
        return math.isfinite(scores.score_N.item())
    return bool(np.isfinite(scores.score_N).all())


def abstention(
    request: Request, wants: Wants, found: Provenance, *, is_stale: bool = False
) -> Answer:
    """Return the answer without a decision, or the error that the caller asked for instead."""
    request_id = request.id
    head = _headers(found, request_id)
    if wants.wants_errors:
        status = 422 if is_stale else 503
        return failure(status, f"no decision: {found.reason}", head=head)
    notes = {"trademl": _in_body(found, None, request_id)}
    content_type, body = format_nothing(request.header(b"accept"), notes)
    return Answer(200, body, content_type, head=head)


def brief_abstention(request: Request, tier: str, reason: str, queue_s: float) -> Answer | None:
    """Return what `abstention` does for a caller who asks for nothing special, None for others.

    It takes a quarter of the time, which counts where most requests are sent away.
    """
    if not _SAID_OF_ABSTENTION.isdisjoint(request.headers):
        return None
    request_id = request.id
    queue_ms = b"%.3f" % (queue_s * 1000)
    head = b"%b%b\r\nX-Request-Id: %b\r\n" % (head_start(tier, reason, b""), queue_ms, request_id)
    body = b'%b%b,"request_id":"%b"}}' % (_body_start(tier, reason), queue_ms, request_id)
    return Answer(200, body, "application/json", "", head)


@lru_cache(maxsize=16)
def _body_start(tier: str, reason: str) -> bytes:
    note = _in_body(Provenance(tier, reason), None, b"")
    del note["queue_ms"], note["request_id"]
    _, body = format_nothing("", {"trademl": note})
    return body.removesuffix(b"}}") + b',"queue_ms":'


def _headers(found: Provenance, request_id: bytes, model_head: bytes = b"") -> bytes:
    """Return the header lines of an answer."""
    return b"%b%.3f\r\nX-Request-Id: %b\r\n" % (
        head_start(found.tier, found.reason, model_head, f"{found.age_s * 1000:.0f}"),
        found.queue_s * 1000,
        request_id,
    )


@lru_cache(maxsize=256)
def head_start(tier: str, reason: str, model_head: bytes, age_ms: str = "0") -> bytes:
    """Return the header lines that many answers share, up to where the queue time stands."""
    return (
        b"X-Trademl-Tier: %b\r\n%bX-Trademl-Reason: %b\r\nX-Trademl-Age-Ms: %b\r\n"
        b"X-Trademl-Queue-Ms: "
    ) % (tier.encode(), model_head, header_text(reason), age_ms.encode())


def _in_body(found: Provenance, model_id: str | None, request_id: bytes) -> dict[str, Any]:
    return {
        "tier": found.tier,
        "model": model_id,
        "reason": found.reason,
        "age_ms": round(found.age_s * 1000, 3),
        "queue_ms": round(found.queue_s * 1000, 3),
        "request_id": request_id.decode("latin-1"),
    }
