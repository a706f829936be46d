"""Connections to the ledger's database, each with the password of the moment."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.pool import NullPool

from trademl.errors import ConfigError, require_extra
from trademl.ledger.databases import Database, as_database
from trademl.ledger.failures import is_refused
from trademl.ledger.secrets import open_secret

if TYPE_CHECKING:
    from trademl.ports import SecretSource

CONNECT_TIMEOUT_S = 10
_SQLITE_WAIT_S, _LOOK_S = 30, 0.01
# A server that vanished without a word is given up after about half a minute; by default, TCP
# would wait for a quarter of an hour.
_POSTGRESQL = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_MYSQL = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": 120, "write_timeout": 60}


def open_engine(where: str | Database) -> Engine:
    """Return an engine; nothing is connected yet.

    SQLite waits for locks, checks foreign keys and keeps a write-ahead log. A server's connection
    is tried before it is used again, and every new one asks for the password anew.

    Raises
    ------
    MissingExtraError
        If the server's driver is not installed.
    """
    database = as_database(where)
    if database.is_file:
        engine = create_engine(database.url, poolclass=NullPool)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    return create_engine(
        database.url,
        creator=connector(database),
        hide_parameters=True,
        pool_pre_ping=True,
        # MySQL's default locks the gaps that rows are written into: two backtests would block
        isolation_level="READ COMMITTED",
    )


def connector(database: Database) -> Callable[[], Any]:
    """Return a function that opens a connection of a server's driver.

    A password that was refused is fetched once more, in case it was changed since.

    Raises
    ------
    MissingExtraError
        If the driver, or what the password's source needs, is not installed.
    """
    require_extra("servers")
    url = make_url(database.url)
    kind = url.get_dialect()
    dialect = kind(dbapi=kind.import_dbapi())  # type: ignore[call-arg]
    arguments, named = dialect.create_connect_args(url)
    named = {**_connect_args(database), **named}
    secret = open_secret(database)
    driver: Any = dialect.loaded_dbapi

    def connect() -> Any:
        if secret is None:
            return driver.connect(*arguments, **named)
        given = _login(secret, named)
        try:
            return driver.connect(*arguments, **given)
        except driver.Error as error:
            newer = _login(secret, named, renewed=True) if is_refused(error) else given
            if newer == given:
                raise
            return driver.connect(*arguments, **newer)

    return connect


def _login(secret: SecretSource, named: dict[str, Any], *, renewed: bool = False) -> dict[str, Any]:
    found = secret.credentials(renewed=renewed)
    user = {"user": found.user} if found.user else {}  # rotation may change between two users
    return {**named, **user, "password": found.password}


def _connect_args(database: Database) -> dict[str, Any]:
    tls, is_postgresql = database.tls_mode, database.url.startswith("postgresql")
    if is_postgresql:
        words = {"off": "disable", "require": "require", "verify-full": "verify-full"}
        mode = {"sslmode": words[tls]} if tls != "auto" else {}
        trusted = {"sslrootcert": database.ca_file or "system"} if tls == "verify-full" else {}
        return {**_POSTGRESQL, **mode, **trusted}
    if tls in ("auto", "off"):
        return dict(_MYSQL)
    return {**_MYSQL, "ssl": _ssl_context(database.ca_file, is_verified=tls == "verify-full")}


def _ssl_context(ca_file: str, *, is_verified: bool) -> Any:
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"ledger.ca_file {ca_file} cannot be read as PEM: {error}") from error
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute(f"PRAGMA busy_timeout={_SQLITE_WAIT_S * 1000}")
    _keep_write_ahead_log(connection)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _keep_write_ahead_log(connection: Any) -> None:
    """Switch a file to its write-ahead log, where it has none; several may do it at once.

    SQLite refuses at once, whatever ``busy_timeout`` says, while another begins to write.
    """
    until = time.monotonic() + _SQLITE_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_LOOK_S)
