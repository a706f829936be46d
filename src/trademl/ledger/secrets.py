"""Where the password of a database comes from, by the kind that ``password_from`` names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from trademl.errors import ConfigError
from trademl.ports import Credentials, Login, SecretSource

if TYPE_CHECKING:
    from trademl.ledger.databases import Database

# Kind -> module and class, called with what follows the colon and the login. They are loaded when
# asked for: those of AWS lie above this package, and processes that a backtest starts need them.
_SOURCES = {
    "file": ("trademl.ledger.secrets", "FileSecret"),
    "secretsmanager": ("trademl.aws.secrets", "StoredSecret"),
    "rds-iam": ("trademl.aws.secrets", "TokenSecret"),
}


class FileSecret:
    """A password in a file, read anew for each connection: whoever rotates it writes it there."""

    def __init__(self, path: str, login: Login) -> None:  # noqa: ARG002  (told to every source)
        self._path = Path(path).expanduser()

    def credentials(self, *, renewed: bool = False) -> Credentials:  # noqa: ARG002
        """Return the first line of the file."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(
                f"ledger.password_from: {self._path}: the password cannot be read: {reason}"
            ) from error
        if not (lines := text.splitlines()) or not lines[0]:
            raise ConfigError(f"ledger.password_from: {self._path} is empty, expected a password")
        return Credentials(lines[0])


def open_secret(database: Database) -> SecretSource | None:
    """Return where the password of a database comes from; None where its URL says it.

    Raises
    ------
    ConfigError
        If the source is told too little.
    MissingExtraError
        If a library that the source needs is not installed.
    """
    kind, _, what = database.password_from.partition(":")
    if not kind:
        return None
    if kind not in _SOURCES:
        raise ConfigError(
            f"ledger.password_from is {database.password_from}, which only settings resolve: load "
            "them with load_settings"
        )
    module, name = _SOURCES[kind]
    return cast("SecretSource", getattr(import_module(module), name)(what, database.login))
