"""The usual request in a straight line: one plain row, a linear model, nothing else to see to.

It could go the general way too, with the same answer, for twice the time: what is looked up,
copied and wrapped on that way costs more than reading 605 numbers. Whatever is not usual, be it a
form, a header or a score that is no number, goes there, and gets its error there if it is one.

Shape letters: D feature columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trademl.serve.formats import CSV, JSON, RECORDIO, one_prediction
from trademl.serve.messages import Answer, Request
from trademl.serve.model_pool import Held
from trademl.serve.number_text import read_csv_row, read_json_row
from trademl.serve.provenance import head_start
from trademl.serve.rows import around_features

_JSON, _CSV, _RECORDIO = JSON.encode(), CSV.encode(), RECORDIO.encode()
_USUAL_ACCEPT = (_JSON, b"*/*")
_SEEN_TO = frozenset((b"accept", b"content-encoding"))


class AtOnce:
    """Reads, scores and answers usual requests; keeps room for one row."""

    def __init__(self) -> None:
        self._feature_dim = 0

    def answer(
        self, request: Request, held: Held, tier: str, reason: str, queue_s: float
    ) -> Answer | None:
        """Return the answer, or None where the request must go the general way."""
        model, asked = held.model, request.headers
        if model is None or model.score_one is None:
            return None
        if not _SEEN_TO.isdisjoint(asked) and (
            b"content-encoding" in asked or asked[b"accept"] not in _USUAL_ACCEPT
        ):
            return None
        if self._feature_dim != model.feature_dim:
            self._make_room(model.feature_dim)
        row_D = self._row(asked.get(b"content-type"), request.body)
        if row_D is None or (score := model.score_one(row_D)) != score:  # NaN
            return None
        head = b"%b%.3f\r\nX-Request-Id: %b\r\n" % (
            head_start(tier, reason, model.head),
            queue_s * 1000,
            request.id,
        )
        body = one_prediction(score, 1.0 if score >= model.threshold else 0.0)
        return Answer(200, body, "application/json", "", head)

    def _make_room(self, feature_dim: int) -> None:
        self._feature_dim = feature_dim
        self._room_1D = np.empty((1, feature_dim), np.float32)
        self._head, self._tail = around_features(feature_dim)
        self._record_bytes = len(self._head) + 4 * feature_dim + len(self._tail)

    def _row(self, content_type: bytes | None, body: bytes) -> NDArray[np.float32] | None:
        """Return the only row of a plain body; None for another one."""
        if content_type == _JSON:
            return self._room_1D[0] if read_json_row(body, self._room_1D) else None
        if content_type == _CSV:
            return self._room_1D[0] if read_csv_row(body, self._room_1D) else None
        is_record = (
            content_type == _RECORDIO
            and len(body) == self._record_bytes
            and body.startswith(self._head)
            and body.endswith(self._tail)
        )
        if not is_record:
            return None
        return np.frombuffer(body, np.float32, self._feature_dim, len(self._head))
