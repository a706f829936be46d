"""Request bodies to feature rows, scores to response bodies, as SageMaker's Linear Learner.

Pure functions: no I/O and no state. Rows are counted from 1 in messages, as in the body.
Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from trademl.etl.recordio import encode_predictions
from trademl.serve.number_text import PlainReader, plain_csv_rows, plain_json_rows
from trademl.serve.row_sum import is_finite
from trademl.serve.rows import (
    Features,
    RequestError,
    most_rows,
    rows_from_csv,
    rows_from_json,
    rows_from_json_lines,
    rows_from_recordio,
    shown,
)
from trademl.serve.served import Scores

CSV = "text/csv"
JSON = "application/json"
JSON_LINES = "application/jsonlines"
RECORDIO = "application/x-recordio-protobuf"

_PARSERS: dict[str, Callable[[bytes, int], Features]] = {
    CSV: rows_from_csv,
    JSON: rows_from_json,
    JSON_LINES: rows_from_json_lines,
    RECORDIO: rows_from_recordio,
}
_USUAL_LABELS = {0.0: b"0.0", 1.0: b"1.0"}
_PLAIN_READERS: dict[str, PlainReader] = {CSV: plain_csv_rows, JSON: plain_json_rows}


def parse_request(content_type: str, body: bytes, feature_dim: int) -> Features:
    r"""Return the feature rows of a request body.

    Parameters
    ----------
    content_type : str
        ``text/csv``, ``application/json``, ``application/jsonlines`` or
        ``application/x-recordio-protobuf``, with or without parameters.
    body : bytes
        The whole body.
    feature_dim : int
        Number of features that each row must have, D.

    Returns
    -------
    ndarray of float32, shape (N, D)
        At least one row; every value is finite.

    Raises
    ------
    RequestError
        415 for another content type, 413 for too many rows, 400 for a body that is malformed,
        naming the row, what was found and what was expected.

    Examples
    --------
    >>> parse_request("text/csv", b"1,2\n3,4\n", 2).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    parse, read_plain = _readers_of(content_type)
    if read_plain is not None:
        plain_ND = read_plain(body, feature_dim, most_rows(feature_dim))
        if plain_ND is not None:
            return plain_ND
    features_ND = parse(body, feature_dim)
    if not is_finite(features_ND):
        row, column = np.argwhere(~np.isfinite(features_ND))[0] + 1
        raise RequestError(400, f"row {row}, feature {column} is not a finite float32 number")
    return features_ND


def format_response(
    accept: str, scores: Scores, notes: Mapping[str, Any] | None = None
) -> tuple[str, bytes]:
    """Return the content type and the body of an answer.

    Parameters
    ----------
    accept : str
        The request's Accept header; empty means anything. JSON wins where several are equal.
    scores : Scores
        A score of several classes becomes a list; without labels there is only the score.
    notes : mapping, optional
        Further keys of a JSON body. The other forms have no place for them.

    Raises
    ------
    RequestError
        406 if the client accepts none of JSON, JSON lines and RecordIO-protobuf.

    Examples
    --------
    >>> format_response("", Scores(np.array([0.4], np.float32), np.array([0.0], np.float32)))
    ('application/json', b'{"predictions":[{"score":0.4,"predicted_label":0.0}]}')
    """
    content_type = negotiate(accept)
    if content_type == JSON and not notes and scores.score_N.shape == (1,):
        label = None if scores.label_N is None else scores.label_N.item()
        return content_type, one_prediction(scores.score_N[0], label)
    if content_type == RECORDIO:
        return content_type, encode_predictions(*scores)
    predictions = _predictions(scores)
    if content_type == JSON_LINES:
        return content_type, b"\n".join([_dumps(prediction) for prediction in predictions])
    return content_type, _dumps({"predictions": predictions, **(notes or {})})


def format_nothing(accept: str, notes: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the content type and the body of an answer without a decision.

    Examples
    --------
    >>> format_nothing("", {"why": "busy"})
    ('application/json', b'{"predictions":[],"why":"busy"}')
    """
    content_type = negotiate(accept)
    return content_type, _dumps({"predictions": [], **notes}) if content_type == JSON else b""


def one_prediction(score: float, label: float | None) -> bytes:
    """Return the JSON of one score, a float32: put together without objects between.

    Examples
    --------
    >>> one_prediction(np.float32(0.4), 1.0)
    b'{"predictions":[{"score":0.4,"predicted_label":1.0}]}'
    """
    written = orjson.dumps(np.float32(score), None, orjson.OPT_SERIALIZE_NUMPY)
    if label is None:
        return b'{"predictions":[{"score":%b}]}' % written
    said = _USUAL_LABELS.get(label) or _dumps(np.float32(label))
    return b'{"predictions":[{"score":%b,"predicted_label":%b}]}' % (written, said)


def _predictions(scores: Scores) -> list[dict[str, Any]]:
    # numpy's own float32 scalars: orjson then writes the shortest digits that read back equal
    score_N, label_N = scores
    if label_N is None:
        return [{"score": score} for score in score_N]
    return [
        {"score": score, "predicted_label": label}
        for score, label in zip(score_N, label_N, strict=True)
    ]


@lru_cache(maxsize=256)
def negotiate(accept: str) -> str:
    """Return the content type to answer with, of those that the Accept header names."""
    wanted = [_weighed(part) for part in accept.split(",") if part.strip()] or [(1.0, "*/*")]
    for weight, name in sorted(wanted, key=lambda choice: -choice[0]):
        if weight > 0 and name in ("*/*", "application/*"):
            return JSON
        if weight > 0 and name in (JSON, JSON_LINES, RECORDIO):
            return name
    raise RequestError(
        406, f"cannot answer as {shown(accept)}: accept {JSON}, {JSON_LINES} or {RECORDIO}"
    )


def _weighed(choice: str) -> tuple[float, str]:
    name, *parameters = (part.strip().lower() for part in choice.split(";"))
    for parameter in parameters:
        if match := re.fullmatch(r"q\s*=\s*([01](?:\.\d{0,3})?)", parameter):
            return float(match[1]), name
    return 1.0, name


@lru_cache(maxsize=256)
def _readers_of(content_type: str) -> tuple[Callable[[bytes, int], Features], PlainReader | None]:
    name, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if name not in _PARSERS:
        found = shown(name) if name else "missing"
        raise RequestError(415, f"content type is {found}: expected one of {', '.join(_PARSERS)}")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "label_size" and value.strip() != "0":
            raise RequestError(
                400, f"{shown(parameter)}: send rows without their label, label_size=0"
            )
    return _PARSERS[name], _PLAIN_READERS.get(name)


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
