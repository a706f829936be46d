"""Look at a workspace's ledger, bring it to this trademl's schema, and write what waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import make_url

from trademl.errors import CloudError, SchemaError, StoreError
from trademl.ledger import Database, Ledger
from trademl.ledger.connections import open_engine
from trademl.ledger.failures import database_errors
from trademl.ledger.schema import SchemaState, check_schema, migrate, schema_state
from trademl.ledger.spool import DONE, REFUSED, Drained, Spool
from trademl.pipeline.workspace import spool_folder


@dataclass(frozen=True)
class LedgerStatus:
    """How a ledger stands.

    Parameters
    ----------
    database : str
        Its address without a password.
    state : {"ready", "empty", "older", "newer", "failed"}
        Empty: its tables will be made when it is first used. Failed: it cannot be used now.
    found, newest : str or None
        Revision of its schema, and of this trademl's.
    missing : tuple of str
        Revisions that it lacks.
    n_waiting, n_refused : int
        Results in the workspace that wait for it, and that it refused.
    spool : str
        File in which they wait; empty for a file of SQLite, which is never away.
    says : str
        What to do; empty where nothing is.
    """

    database: str
    state: Literal["ready", "empty", "older", "newer", "failed"]
    found: str | None
    newest: str | None
    missing: tuple[str, ...]
    n_waiting: int
    n_refused: int
    spool: str
    says: str

    @property
    def is_usable(self) -> bool:
        """Whether verbs can open it."""
        return self.state in ("ready", "empty")


def ledger_status(root: Path, ledger: Database | None = None) -> LedgerStatus:
    """Return how the ledger of the workspace at ``root`` stands; change nothing."""
    database = (ledger or Database()).at(root.resolve())
    spool = _spool(root, database)
    records = [] if spool is None else spool.records()
    n_refused = sum(record.state == REFUSED for record in records)
    n_waiting = sum(record.state != DONE for record in records) - n_refused
    waiting = "run trademl ledger flush" if records and n_waiting + n_refused else ""
    found: SchemaState | None = None
    state: Literal["ready", "empty", "older", "newer", "failed"]
    try:
        found = _look(database)
        check_schema(found, str(database), may_upgrade=database.is_file)
        state, says = "empty" if found.found is None else "ready", waiting
    except SchemaError as error:
        state, says = "newer" if found and found.is_newer else "older", str(error)
    except (StoreError, CloudError) as error:
        state, says = "failed", str(error)
    return LedgerStatus(
        str(database),
        state,
        found.found if found else None,
        found.newest if found else None,
        found.missing if found else (),
        n_waiting,
        n_refused,
        "" if spool is None else str(spool.path),
        says,
    )


def flush_ledger(root: Path, ledger: Database | None = None) -> Drained:
    """Write the results that wait in the workspace, those that were refused before among them.

    Raises
    ------
    AwayError
        If the database is still away.
    SchemaError
        If another version of trademl made it.
    """
    database = (ledger or Database()).at(root.resolve())
    if database.is_file:
        return Drained()
    opened = Ledger(database, spool=spool_folder(root.resolve()), is_flushed=False)
    try:
        return opened.flush(again=True)
    finally:
        opened.close()


def upgrade_ledger(root: Path, ledger: Database | None = None) -> SchemaState:
    """Bring the ledger's tables to the schema of this trademl; return where they stood before.

    Everybody who works on the database then needs a trademl that is as new.

    Raises
    ------
    SchemaError
        If a newer trademl has changed it.
    AwayError
        If it cannot be reached now.
    """
    database = (ledger or Database()).at(root.resolve())
    with database_errors(database.url):
        engine = open_engine(database)
        try:
            return migrate(engine)
        finally:
            engine.dispose()


def _spool(root: Path, database: Database) -> Spool | None:
    if database.is_file:
        return None
    return Spool(spool_folder(root.resolve()) / database.spool_name)


def _look(database: Database) -> SchemaState:
    file = make_url(database.url).database if database.is_file else None
    with database_errors(database.url):
        there = file is None or Path(file).exists()
        engine = open_engine(database if there else Database("sqlite://"))
        try:
            with engine.connect() as connection:
                return schema_state(connection)
        finally:
            engine.dispose()
