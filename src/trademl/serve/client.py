"""Predictions over HTTP, from this project's server or any that speaks SageMaker's formats.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import http.client
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
from numpy.typing import NDArray

from trademl.errors import ConfigError, DataError, ServeError
from trademl.etl.recordio import decode_predictions, encode_records
from trademl.ports import Progress, Silent
from trademl.serve.formats import CSV, JSON, JSON_LINES, RECORDIO
from trademl.serve.ladder import LONGEST_S
from trademl.serve.settings import MIB

MAX_REQUEST_BYTES = 6 * MIB
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
_ANSWER_FORMS = (JSON, JSON_LINES, RECORDIO)
_FORMS = (CSV, *_ANSWER_FORMS)
_SHOWN = 300

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """Scores of rows, and what the server says of the model that gave them.

    Parameters
    ----------
    score_N, label_N : ndarray of float32, shape (N,)
        Scores, and predicted labels 0 or 1; NaN where the model predicts a quantity.
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


def predict(
    url: str,
    features_ND: Floats,
    *,
    content_type: str = RECORDIO,
    accept: str = JSON,
    batch_rows: int = 500,
    timeout_s: float = 60.0,
    token: str = "",
    feature_time_ns: int | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Return the server's predictions for all rows, asked in requests of at most 6 MiB.

    Parameters
    ----------
    url : str
        Where the server is, without ``/invocations``.
    features_ND : ndarray of float32, shape (N, D)
        At least one row; finite.
    content_type, accept : str
        Forms of the request and of the answer.
    batch_rows : int
        Most rows in one request.
    timeout_s : float
        Longest wait for one answer.
    token : str
        What the server knows the caller by, where it wants that.
    feature_time_ns : int, optional
        The latest tick that the features read, UTC.
    progress : Progress, optional
        Told of rows done.

    Raises
    ------
    ServeError
        If the server cannot be reached, refuses (its own words are quoted), answers what cannot
        be understood, or changes its model between two requests.
    """
    features_ND = _checked(features_ND)
    if accept not in _ANSWER_FORMS:
        raise ServeError(f"cannot read {accept!r}: expected one of {', '.join(_ANSWER_FORMS)}")
    progress = progress or Silent()
    progress.step("predict", f"{len(features_ND)} rows at {url}")
    answers: list[Predictions] = []
    done = 0
    headers = {
        "Content-Type": content_type,
        "Accept": accept,
        "X-Trademl-Deadline-Ms": f"{min(timeout_s, LONGEST_S) * 1000:.0f}",
        "X-Trademl-On-Abstain": "error",
    }
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if feature_time_ns is not None:
        headers["X-Trademl-Feature-Time-Ns"] = str(feature_time_ns)
    with closing(ServerSession(url, timeout_s)) as session:
        for n_rows, body in _requests(features_ND, content_type, batch_rows):
            answers.append(_ask(session, body, n_rows, headers))
            done += n_rows
            progress.advance(done, len(features_ND))
    progress.done(f"{done} rows")
    return _joined(answers)


def ping(url: str, *, timeout_s: float = 2.0) -> None:
    """Return if the server says that it is healthy.

    Raises
    ------
    ServeError
        If it cannot be reached or says otherwise.
    """
    with closing(ServerSession(url, timeout_s)) as session:
        session.request("GET", "/ping")


def read_token(path: Path) -> str:
    """Return the token that a file holds, alone.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds something else.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the token cannot be read: {error}") from error
    if not token or not token.isprintable() or " " in token:
        raise ConfigError(f"{path} holds no single token: expected one line without spaces")
    return token


class ServerSession:
    """One connection, kept open, and opened again where the server has closed it meanwhile."""

    def __init__(self, url: str, timeout_s: float) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in _CONNECTIONS:
            raise ServeError(f"{url!r} is no server's address: expected http://host:port")
        self._connection = _CONNECTIONS[parts.scheme](host, port, timeout=timeout_s)
        self._url, self._prefix = url, parts.path.rstrip("/")

    def close(self) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[http.client.HTTPMessage, bytes]:
        """Return headers and body of a 200; anything else is a `ServeError`."""
        was_open = self._connection.sock is not None
        with _plain_errors(self._url):
            try:
                response, answer = self._send(method, path, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                if not was_open:
                    raise
                self._connection.close()  # closed while idle; to predict twice does no harm
                response, answer = self._send(method, path, body, headers)
        if response.status != 200:
            raise ServeError(f"{self._url} answered {response.status}: {_error_text(answer)}")
        return response.headers, answer

    def _send(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.request(method, self._prefix + path, body or None, headers)
        response = self._connection.getresponse()
        return response, response.read()


@contextmanager
def _plain_errors(url: str) -> Iterator[None]:
    try:
        yield
    except ConnectionRefusedError as error:
        raise ServeError(f"nothing answers at {url}: start a server there") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ServeError(f"{url} broke off: {reason}") from error


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


def _ask(session: ServerSession, body: bytes, n_rows: int, asked: dict[str, str]) -> Predictions:
    headers, answer = session.request("POST", "/invocations", body, **asked)
    try:
        score_N, label_N = _decoded(answer, headers.get_content_type())
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise ServeError(
            f"the server's answer cannot be understood: {_error_text(answer)}"
        ) from error
    if not len(score_N) == len(label_N) == n_rows:
        raise ServeError(f"the server answered {len(score_N)} predictions for {n_rows} rows")
    reasons = headers.get("X-Trademl-Reasons", "")
    return Predictions(
        score_N,
        label_N,
        headers.get("X-Trademl-Model", ""),
        headers.get("X-Trademl-Mode", ""),
        headers.get("X-Trademl-Status", ""),
        tuple(reasons.split("; ")) if reasons else (),
    )


def _decoded(body: bytes, content_type: str) -> tuple[Floats, Floats]:
    if content_type == RECORDIO:
        return decode_predictions(body)
    if content_type == JSON_LINES:
        predictions = [orjson.loads(line) for line in body.splitlines() if line.strip()]
    elif content_type == JSON:
        predictions = orjson.loads(body)["predictions"]
    else:
        raise ValueError(content_type)
    score_N, label_N = (
        np.array([float(prediction.get(name, absent)) for prediction in predictions], np.float32)
        for name, absent in (("score", None), ("predicted_label", math.nan))
    )
    return score_N, label_N


def _joined(answers: list[Predictions]) -> Predictions:
    first = answers[0]
    for answer in answers:
        if answer.model_id != first.model_id:
            raise ServeError(
                f"the server changed its model from {first.model_id} to {answer.model_id} "
                "between two requests: ask again"
            )
    return Predictions(
        np.concatenate([answer.score_N for answer in answers]),
        np.concatenate([answer.label_N for answer in answers]),
        first.model_id,
        first.mode,
        first.status,
        first.reasons,
    )


def _error_text(body: bytes) -> str:
    """Return the server's own words, on one line."""
    try:
        text = str(orjson.loads(body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = body.decode("utf-8", "replace")
    line = " ".join(text.split()) or "no body"
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
