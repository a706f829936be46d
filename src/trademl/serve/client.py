"""Predictions over HTTP, from this project's server or any that speaks SageMaker's formats.

Shape letters: N rows, D feature columns.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

from trademl.errors import ConfigError, RefusedError, ServeError
from trademl.ports import Progress
from trademl.serve.formats import JSON, RECORDIO
from trademl.serve.ladder import LONGEST_S
from trademl.serve.questions import (
    ANSWER_FORMS,
    Floats,
    Predictions,
    ask_all,
    error_text,
    read_scores,
)
from trademl.serve.trust import client_context, refusal

_SCHEMES = ("http", "https")
_FEATURE_TIME = "X-Trademl-Feature-Time-Ns"


def predict(
    url: str,
    features_ND: Floats,
    *,
    content_type: str = RECORDIO,
    accept: str = JSON,
    batch_rows: int = 500,
    timeout_s: float = 60.0,
    token: str = "",
    strategy: str = "",
    model: str = "",
    ca_file: str = "",
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
    strategy : str
        Which of a server of several strategies answers; its first one where empty.
    model : str
        Which of a server of several models answers (``POST /models/{name}/invoke``).
    ca_file : str
        Certificates (PEM) to trust besides those of the machine.
    feature_time_ns : int, optional
        The latest tick that the features read, UTC: a server with ``[freshness]`` may want it.
    progress : Progress, optional
        Told of rows done.

    Raises
    ------
    ServeError
        If the server cannot be reached, refuses (its own words are quoted), answers what cannot
        be understood, or changes its model between two requests.
    ConfigError
        If the certificates cannot be read, or the address is none of https.
    """
    if accept not in ANSWER_FORMS:
        raise ServeError(f"cannot read {accept!r}: expected one of {', '.join(ANSWER_FORMS)}")
    headers = {
        "Content-Type": content_type,
        "Accept": accept,
        "X-Trademl-Deadline-Ms": f"{min(timeout_s, LONGEST_S) * 1000:.0f}",
        "X-Trademl-On-Abstain": "error",
    }
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if strategy:
        headers["X-Trademl-Strategy"] = strategy
    if feature_time_ns is not None:
        headers[_FEATURE_TIME] = str(feature_time_ns)
    path = f"/models/{quote(model, safe='')}/invoke" if model else "/invocations"
    with closing(ServerSession(url, timeout_s, ca_file)) as session:
        return ask_all(
            features_ND,
            partial(_ask, session, path, asked=headers),
            where=url,
            content_type=content_type,
            batch_rows=batch_rows,
            progress=progress,
        )


def ping(url: str, *, timeout_s: float = 2.0, ca_file: str = "") -> None:
    """Return if the server says that it is healthy.

    Parameters
    ----------
    ca_file : str
        Certificates (PEM) to trust besides those of the machine.

    Raises
    ------
    ServeError
        If it cannot be reached, its certificate is not trusted, or it says otherwise.
    ConfigError
        If the certificates cannot be read.
    """
    with closing(ServerSession(url, timeout_s, ca_file)) as session:
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

    def __init__(self, url: str, timeout_s: float, ca_file: str = "") -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in _SCHEMES:
            raise ServeError(f"{url!r} is no server's address: expected http://host:port")
        if ca_file and parts.scheme != "https":
            raise ConfigError(f"{ca_file} is for https, and {url} is none: expected https://")
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=timeout_s, context=client_context(ca_file)
            )
        self._url, self._prefix = url, parts.path.rstrip("/")

    def close(self) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[http.client.HTTPMessage, bytes]:
        """Return headers and body of a 200; other answers are a `RefusedError`."""
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
            said = f"{self._url} answered {response.status}: {error_text(answer)}"
            raise RefusedError(said, response.status)
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
    except ssl.SSLError as error:
        raise ServeError(f"{url}: {refusal(error)}") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ServeError(f"{url} broke off: {reason}") from error


def _ask(
    session: ServerSession, path: str, body: bytes, n_rows: int, *, asked: dict[str, str]
) -> Predictions:
    try:
        headers, answer = session.request("POST", path, body, **asked)
    except RefusedError as error:
        if error.status != 422 or _FEATURE_TIME in asked:
            raise
        raise ServeError(f"{error}; say of when they are: --feature-time now, or TIME") from error
    score_N, label_N = read_scores(answer, headers.get_content_type(), n_rows)
    reasons = headers.get("X-Trademl-Reasons", "")
    return Predictions(
        score_N,
        label_N,
        headers.get("X-Trademl-Model", ""),
        headers.get("X-Trademl-Mode", ""),
        headers.get("X-Trademl-Status", ""),
        tuple(reasons.split("; ")) if reasons else (),
    )
