"""The ledger: one SQL database, opened, migrated and written in whole transactions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, delete, event, inspect, select
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from trademl.errors import SchemaError, StoreError
from trademl.ledger.bulk import insert_rows
from trademl.ledger.tables import Base

MIGRATIONS = Path(__file__).parent / "migrations"
MIN_FREE_BYTES = 2**20  # with less, SQLite cannot even map its shared memory
VERSION_TABLE = "trademl_version"  # Optuna keeps an alembic_version of its own beside it
Row = TypeVar("Row", bound=Base)


class Ledger:
    """A connection to the ledger's database, at the current schema.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, for example ``sqlite:///path/ledger.db``.

    Raises
    ------
    SchemaError
        If a newer trademl has migrated the database.
    StoreError
        If it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with database_errors(url):
            self.engine = open_engine(url)
            migrate(self.engine)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session whose changes are committed together, or not at all."""
        with (
            database_errors(self.url),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def record(self, *rows: Base) -> None:
        """Write rows in one transaction; a row whose primary key exists is replaced."""
        with self.session() as session:
            for row in rows:
                session.merge(row)

    def replace(
        self, parent: Base, *children: tuple[type[Base], str, Sequence[Mapping[str, Any]]]
    ) -> None:
        """Write ``parent`` and its many rows in one transaction, over what stood there.

        Parameters
        ----------
        children : tuples of (table, key, rows)
            ``key`` is the column that refers to ``parent.id``; it is filled in here.
        """
        parent_id = parent.id  # type: ignore[attr-defined]
        with self.session() as session:
            session.merge(parent)
            session.flush()
            for table, key, rows in children:
                _rewrite(session, table, {key: parent_id}, rows)

    def rewrite(
        self, table: type[Base], where: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write ``rows``, each with the values of ``where``, over those that had these values."""
        with self.session() as session:
            _rewrite(session, table, where, rows)

    def get(self, table: type[Row], key: Any) -> Row | None:
        """Return the row of that primary key, or None."""
        with self.session() as session:
            return session.get(table, key)

    def rows(self, table: type[Row], **equals: Any) -> list[Row]:
        """Return the rows whose columns equal the given values, in order of the primary key."""
        statement = select(table).filter_by(**equals).order_by(*inspect(table).primary_key)
        with self.session() as session:
            return list(session.scalars(statement))


def _rewrite(
    session: Session,
    table: type[Base],
    where: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    session.execute(delete(table).filter_by(**where))
    insert_rows(session, table, [{**where, **row} for row in rows])


def open_engine(url: str) -> Engine:
    """Return an engine; SQLite waits for locks, checks foreign keys and keeps a write-ahead log."""
    engine = create_engine(url, poolclass=NullPool if url.startswith("sqlite") else None)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    for pragma in (
        "busy_timeout=30000",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def migrate(engine: Engine) -> None:
    """Bring the ledger's tables to the current schema.

    Raises
    ------
    SchemaError
        If the database is at a revision that this version does not know.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    newest = scripts.get_current_head()

    def found(connection: Connection) -> str | None:
        options = {"version_table": VERSION_TABLE}
        return MigrationContext.configure(connection, opts=options).get_current_revision()

    with engine.begin() as connection:
        if (revision := found(connection)) == newest:
            return
        if engine.dialect.name == "sqlite":
            # It alters a table by making it anew. Its driver opens no transaction for DDL by
            # itself: without one, a full disk would leave half of the tables behind.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if (revision := found(connection)) == newest:  # another process was first
                return
        if revision is not None and revision not in known:
            raise SchemaError(
                f"{engine.url.render_as_string()} is at schema {revision}, newer than this "
                f"trademl's {newest}: upgrade trademl, or choose another --workspace"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn a database's own errors into one line."""
    try:
        yield
    except OperationalError as error:
        raise StoreError(f"{_shown(url)}: {error.orig}: {_advice(url, str(error.orig))}") from error
    except DatabaseError as error:
        raise StoreError(
            f"{_shown(url)}: {error.orig}: it is no ledger that this trademl can read; restore it "
            "from a copy, or choose another --workspace"
        ) from error


def _advice(url: str, reason: str) -> str:
    if "full" in reason or ("I/O error" in reason and _free_bytes(url) < MIN_FREE_BYTES):
        return "the disk is full: free some space and run again; finished steps are kept"
    if "locked" in reason:
        return "another process holds it: wait for it, or choose another --workspace"
    return "check that it is reachable and writable"


def _free_bytes(url: str) -> int:
    return shutil.disk_usage(Path(_shown(url)).parent).free


def _shown(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True).removeprefix("sqlite:///")
