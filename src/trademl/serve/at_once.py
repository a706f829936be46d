"""The usual request in a straight line: one plain row, a linear model, nothing else to see to.

It could go the general way too, with the same answer, for twice the time: what is looked up,
copied and wrapped on that way costs more than reading 605 numbers. Whatever is not usual, be it a
form, a header or a score that is no number, goes there, and gets its error there if it is one.

Shape letters: D feature columns.
"""

from __future__ import annotations

import numpy as np

from trademl.serve.formats import CSV, JSON, RECORDIO, one_prediction
from trademl.serve.messages import Answer, Request
from trademl.serve.number_text import read_csv_row, read_json_row
from trademl.serve.provenance import Provenance, headers, id_of
from trademl.serve.rows import Features, one_record
from trademl.serve.served import ServedModel

_JSON, _CSV, _RECORDIO = JSON.encode(), CSV.encode(), RECORDIO.encode()
_USUAL_ACCEPT = (b"application/json", b"*/*")


class AtOnce:
    """Reads, scores and answers usual requests; keeps room for one row."""

    def __init__(self) -> None:
        self._room_1D = np.empty((1, 1), np.float32)

    def answer(self, request: Request, model: ServedModel, found: Provenance) -> Answer | None:
        """Return the answer, or None where the request must go the general way."""
        asked = request.headers
        if (
            model.score_one is None
            or (b"accept" in asked and asked[b"accept"] not in _USUAL_ACCEPT)
            or b"content-encoding" in asked
            or (row_D := self._row(asked.get(b"content-type"), request.body, model)) is None
            or (scored := model.score_one(row_D)) is None
        ):
            return None
        head = headers(found, id_of(request), model.head)
        return Answer(200, one_prediction(*scored), head=head)

    def _row(self, content_type: bytes | None, body: bytes, model: ServedModel) -> Features | None:
        if content_type == _RECORDIO:
            return one_record(body, model.feature_dim)
        if content_type == _JSON:
            read = read_json_row
        elif content_type == _CSV:
            read = read_csv_row
        else:
            return None
        if self._room_1D.shape[1] != model.feature_dim:
            self._room_1D = np.empty((1, model.feature_dim), np.float32)
        return self._room_1D[0] if read(body, self._room_1D) else None
