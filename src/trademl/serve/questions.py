"""Rows to request bodies, and answers to predictions, whatever carries them.

Shape letters: N rows, D feature columns, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from trademl.errors import DataError, ServeError
from trademl.etl.recordio import decode_predictions, encode_records
from trademl.ports import Progress, Silent
from trademl.serve.formats import CSV, JSON, JSON_LINES, RECORDIO
from trademl.serve.settings import MIB

MAX_REQUEST_BYTES = 6 * MIB
ANSWER_FORMS = (JSON, JSON_LINES, RECORDIO)
_FORMS = (CSV, *ANSWER_FORMS)
_SHOWN = 300

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """Scores of rows, and what the server says of the model that gave them.

    Parameters
    ----------
    score_N : ndarray of float32, shape (N,) or (N, K)
        Scores; of several classes, one of each.
    label_N : ndarray of float32, shape (N,)
        Predicted labels: 0 or 1, or the number of a class; NaN where the model predicts a quantity.
    model_id, mode, status : str
        Empty where the server does not say.
    reasons : tuple of str
        Why the model was refused; empty if it was not.
    """

    score_N: Floats
    label_N: Floats
    model_id: str = ""
    mode: str = ""
    status: str = ""
    reasons: tuple[str, ...] = ()


def ask_all(
    features_ND: Floats,
    ask: Callable[[bytes, int], Predictions],
    *,
    where: str,
    content_type: str,
    batch_rows: int,
    progress: Progress | None = None,
) -> Predictions:
    """Return the predictions for all rows, asked in requests of at most 6 MiB.

    Parameters
    ----------
    features_ND : ndarray of float32, shape (N, D)
        At least one row; finite.
    ask : callable
        Sends a body, given the number of its rows too, and returns what was answered.
    where : str
        What progress calls the server.

    Raises
    ------
    ServeError
        If the rows cannot be asked about, or the model changes between two requests.
    """
    features_ND = _checked(features_ND)
    progress = progress or Silent()
    progress.step("predict", f"{len(features_ND)} rows at {where}")
    answers: list[Predictions] = []
    done = 0
    for n_rows, body in _requests(features_ND, content_type, batch_rows):
        answers.append(ask(body, n_rows))
        done += n_rows
        progress.advance(done, len(features_ND))
    progress.done(f"{done} rows")
    return _joined(answers)


def read_scores(body: bytes, content_type: str, n_rows: int) -> tuple[Floats, Floats]:
    """Return scores and labels of an answer, as in `Predictions`.

    Raises
    ------
    ServeError
        If the answer cannot be understood, or is not of so many rows.
    """
    try:
        score_N, label_N = _decoded(body, content_type)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise ServeError(f"the server's answer cannot be understood: {error_text(body)}") from error
    if not len(score_N) == len(label_N) == n_rows:
        raise ServeError(f"the server answered {len(score_N)} predictions for {n_rows} rows")
    return score_N, label_N


def error_text(body: bytes) -> str:
    """Return the server's own words, on one line."""
    try:
        text = str(orjson.loads(body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = body.decode("utf-8", "replace")
    line = " ".join(text.split()) or "no body"
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _checked(features_ND: Floats) -> Floats:
    features_ND = np.ascontiguousarray(features_ND, np.float32)
    if features_ND.ndim != 2 or not features_ND.size:
        raise ServeError(f"features have the shape {features_ND.shape}: expected rows and columns")
    if not (finite := np.isfinite(features_ND)).all():
        row, column = np.argwhere(~finite)[0] + 1
        raise ServeError(f"row {row}, feature {column} is not a finite number: drop the row")
    return features_ND


def _requests(
    features_ND: Floats, content_type: str, batch_rows: int
) -> Iterator[tuple[int, bytes]]:
    """Yield row count and body of each request, in order of rows."""
    if batch_rows < 1:
        raise ServeError(f"batch_rows is {batch_rows}: expected at least 1")
    start = 0
    while start < len(features_ND):
        batch_ND = features_ND[start : start + batch_rows]
        body = _encoded(batch_ND, content_type)
        if len(body) <= MAX_REQUEST_BYTES:
            yield len(batch_ND), body
            start += len(batch_ND)
        elif len(batch_ND) > 1:
            batch_rows = len(batch_ND) // 2
        else:
            raise ServeError(
                f"row {start + 1} alone takes {len(body)} bytes as {content_type}: "
                f"a request holds {MAX_REQUEST_BYTES}"
            )


def _encoded(features_ND: Floats, content_type: str) -> bytes:
    if content_type == RECORDIO:
        return encode_records(features_ND)
    if content_type == CSV:
        return _dumps(features_ND)[2:-2].replace(b"],[", b"\n")
    if content_type == JSON:
        return _dumps({"instances": [{"features": row_D} for row_D in features_ND]})
    if content_type == JSON_LINES:
        return b"\n".join([_dumps({"features": row_D}) for row_D in features_ND])
    raise ServeError(f"cannot write {content_type!r}: expected one of {', '.join(_FORMS)}")


def _decoded(body: bytes, content_type: str) -> tuple[Floats, Floats]:
    if content_type == RECORDIO:
        return decode_predictions(body)
    if content_type == JSON_LINES:
        predictions = [orjson.loads(line) for line in body.splitlines() if line.strip()]
    elif content_type == JSON:
        predictions = orjson.loads(body)["predictions"]
    else:
        raise ValueError(content_type)
    scores = [_numbers(prediction["score"]) for prediction in predictions]
    labels = [float(prediction.get("predicted_label", math.nan)) for prediction in predictions]
    return np.array(scores, np.float32), np.array(labels, np.float32)


def _numbers(score: Any) -> float | list[float]:
    """Return a score, or one of each class; whatever else came is a `TypeError`."""
    return [float(one) for one in score] if isinstance(score, list) else float(score)


def _joined(answers: list[Predictions]) -> Predictions:
    first = answers[0]
    for answer in answers:
        if answer.model_id != first.model_id:
            raise ServeError(
                f"the server changed its model from {first.model_id} to {answer.model_id} "
                "between two requests: ask again"
            )
        if answer.score_N.shape[1:] != first.score_N.shape[1:]:
            raise ServeError("the server changed its number of classes between two requests")
    return Predictions(
        np.concatenate([answer.score_N for answer in answers]),
        np.concatenate([answer.label_N for answer in answers]),
        first.model_id,
        first.mode,
        first.status,
        first.reasons,
    )


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
