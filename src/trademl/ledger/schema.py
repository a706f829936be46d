"""The schema of the ledger's database: at which revision it is, and how it gets to the newest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

from trademl.errors import SchemaError, StoreError
from trademl.ledger.databases import shown

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "trademl_version"  # Optuna keeps an alembic_version of its own beside it
_LOCK = 7_234_017_283_807_667  # any number that nobody else locks
_LOCK_NAME, _LOCK_WAIT_S = "trademl_schema", 60


@dataclass(frozen=True)
class SchemaState:
    """Where a database stands.

    Parameters
    ----------
    found : str or None
        Its revision; None where it holds no ledger yet.
    newest : str
        The revision that this trademl works with.
    missing : tuple of str
        Revisions that it lacks, in order; empty too where it is newer than this trademl.
    is_newer : bool
        Whether its revision is one that this trademl does not know.
    """

    found: str | None
    newest: str
    missing: tuple[str, ...]
    is_newer: bool


def schema_state(connection: Connection) -> SchemaState:
    """Return where a database stands; change nothing."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config())
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    known = [script.revision for script in scripts.walk_revisions()][::-1]
    found = context.get_current_revision()
    if found is not None and found not in known:
        return SchemaState(found, known[-1], (), is_newer=True)
    done = 0 if found is None else known.index(found) + 1
    return SchemaState(found, known[-1], tuple(known[done:]), is_newer=False)


def migrate(engine: Engine, *, may_upgrade: bool = True) -> SchemaState:
    """Bring the ledger's tables to the current schema, one process at a time.

    Parameters
    ----------
    may_upgrade : bool
        Whether tables that are there already may be changed.

    Returns
    -------
    SchemaState
        Where the database stood before.

    Raises
    ------
    SchemaError
        If the database is at a revision that this version does not know, or at an older one and
        may not be upgraded.
    StoreError
        If another process changes it and does not end.
    """
    name = shown(engine.url.render_as_string())
    with engine.connect() as connection:
        state = schema_state(connection)
    check_schema(state, name, may_upgrade=True)  # a step of another process that is at it may show
    if not state.missing:
        return state
    with engine.begin() as connection, one_at_a_time(connection):
        state = schema_state(connection)  # where it has ended
        check_schema(state, name, may_upgrade=may_upgrade)
        if state.missing:
            from alembic import command

            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return state


def check_schema(state: SchemaState, name: str, *, may_upgrade: bool) -> None:
    """Refuse a schema that this version cannot work with, or may not change.

    Raises
    ------
    SchemaError
        The message names both revisions and what mends it.
    """
    if state.is_newer:
        raise SchemaError(
            f"{name} is at schema {state.found}, newer than this trademl's {state.newest}: upgrade "
            "trademl (pip install --upgrade trademl), or choose another --workspace or ledger.url"
        )
    if state.found is not None and state.missing and not may_upgrade:
        raise SchemaError(
            f"{name} is at schema {state.found}, older than this trademl's {state.newest}: run "
            "trademl ledger upgrade once nobody works on it with an older trademl"
        )


@contextmanager
def one_at_a_time(connection: Connection) -> Iterator[None]:
    """Let one process of all that share a database change its tables.

    On PostgreSQL and SQLite the lock is held to the end of the connection's transaction, on MySQL,
    which commits with each change of a table, to the end of the block. SQLite's is that of the
    whole file, and makes the changes whole or absent, which its driver would not by itself.
    """
    server = connection.dialect.name
    if server == "sqlite":
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")  # it alters a table by making it anew
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif server == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_S}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    else:
        wait = {"name": _LOCK_NAME, "wait_s": _LOCK_WAIT_S}
        if connection.scalar(text("SELECT GET_LOCK(:name, :wait_s)"), wait) != 1:
            raise StoreError(
                f"{shown(connection.engine.url.render_as_string())}: another process has been "
                f"changing the schema for {_LOCK_WAIT_S} s: wait for it, then try again"
            )
    try:
        yield
    finally:
        if server in ("mysql", "mariadb"):
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": _LOCK_NAME})


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
