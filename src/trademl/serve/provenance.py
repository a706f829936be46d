"""What every answer says of itself: tier, model, age, time in queues and reason.

Shape letters: N rows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from trademl.serve.formats import format_nothing, format_response
from trademl.serve.messages import Answer, Request, failure
from trademl.serve.served import Scores, ServedModel, header_text
from trademl.serve.wants import Wants


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


def _headers(found: Provenance, request_id: bytes, model_head: bytes = b"") -> bytes:
    return (
        b"X-Trademl-Tier: %b\r\n%bX-Trademl-Age-Ms: %.0f\r\nX-Trademl-Queue-Ms: %.3f\r\n"
        b"X-Trademl-Reason: %b\r\nX-Request-Id: %b\r\n"
        % (
            found.tier.encode(),
            model_head,
            found.age_s * 1000,
            found.queue_s * 1000,
            header_text(found.reason),
            request_id,
        )
    )


def _in_body(found: Provenance, model_id: str | None, request_id: bytes) -> dict[str, Any]:
    return {
        "tier": found.tier,
        "model": model_id,
        "reason": found.reason,
        "age_ms": round(found.age_s * 1000, 3),
        "queue_ms": round(found.queue_s * 1000, 3),
        "request_id": request_id.decode("latin-1"),
    }
