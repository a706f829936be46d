"""Where captured requests can go: a folder, or a scheme that another package teaches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trademl.errors import ConfigError, StoreError
from trademl.serve.capture import Sink
from trademl.store.artifacts import storage_errors, write_atomically

Opener = Callable[[str], Sink]
_openers: dict[str, Opener] = {}


def register_sink(scheme: str, opener: Opener) -> None:
    """Let `open_sink` open destinations of a scheme, such as ``s3``.

    Parameters
    ----------
    opener : callable
        Takes the destination; raises a TrademlError of one line where it cannot be used.
    """
    _openers[scheme] = opener


def open_sink(destination: str) -> Sink:
    """Return what keeps files at a destination.

    Raises
    ------
    ConfigError
        If its scheme is not known.
    StoreError, CloudError
        If it cannot be used.
    """
    scheme, is_url, _ = destination.partition("://")
    if not is_url:
        return FolderSink(Path(destination))
    if scheme not in _openers:
        known = ", ".join(f"{name}://" for name in sorted(_openers))
        raise ConfigError(
            f"{destination}: captured requests go to a folder{f' or {known}' if known else ''}"
        )
    return _openers[scheme](destination)


class FolderSink:
    """Files below a folder.

    Raises
    ------
    StoreError
        If the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with storage_errors(folder, "--capture"):
            folder.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, content: bytes) -> None:
        """Write a file; see `trademl.serve.capture.Sink`."""
        path = self._folder / key
        try:
            with storage_errors(path, "--capture"):
                write_atomically(path, content)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error}") from error
