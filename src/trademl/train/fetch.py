"""The bytes of a file given as a path or a URL; who knows another scheme may teach it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trademl.errors import ConfigError, StoreError
from trademl.store.artifacts import storage_errors

Reader = Callable[[str], bytes]
_LARGEST_BYTES = 1 << 30
_TIMEOUT_S = 30.0
_readers: dict[str, Reader] = {}


def register_scheme(scheme: str, reader: Reader) -> None:
    """Let `read_bytes` read URLs of a scheme, such as ``s3``.

    Parameters
    ----------
    reader : callable
        Takes the URL and returns the object's bytes; raises a TrademlError of one line.
    """
    _readers[scheme] = reader


def read_bytes(where: Path | str) -> bytes:
    """Return what lies at a path, or at a URL of ``file``, ``http``, ``https`` or a known scheme.

    Raises
    ------
    ConfigError
        If the URL's scheme is not known.
    StoreError
        If nothing is there, or it cannot be read.
    """
    scheme = urlsplit(where).scheme if isinstance(where, str) and "://" in where else ""
    if scheme in _readers:
        return _readers[scheme](str(where))
    if scheme in ("http", "https"):
        return _download(str(where))
    if scheme not in ("", "file"):
        known = ", ".join(["file", "http", "https", *sorted(_readers)])
        raise ConfigError(f"{where}: URLs of {scheme} cannot be read here; known: {known}")
    path = Path(unquote(urlsplit(str(where)).path)) if scheme else Path(where)
    try:
        with storage_errors(path):
            return path.read_bytes()
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise StoreError(f"{path} does not exist: train again") from error
        raise
    except IsADirectoryError as error:
        raise StoreError(f"{path} is a folder, expected a file") from error


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:  # noqa: S310  http(s) alone
            content: bytes = reply.read(_LARGEST_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise StoreError(f"{url} cannot be read ({error}): check the address") from error
    if len(content) > _LARGEST_BYTES:
        raise StoreError(f"{url} is larger than {_LARGEST_BYTES >> 20} MiB: expected a model")
    return content
