"""The ledger: one SQL database, opened, migrated and written in whole transactions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import inspect, select, text
from sqlalchemy.orm import Session

from trademl.errors import AwayError, CloudError
from trademl.ledger.bulk import Rows
from trademl.ledger.connections import open_engine
from trademl.ledger.databases import Database, as_database
from trademl.ledger.failures import database_errors
from trademl.ledger.schema import VERSION_TABLE, migrate
from trademl.ledger.spool import Drained, Spool
from trademl.ledger.tables import Base
from trademl.ledger.writes import Write, apply, may_wait, merged, pack, unpack

Row = TypeVar("Row", bound=Base)
_log = logging.getLogger(__name__)


class Ledger:
    """A connection to the ledger's database, at the current schema.

    A file of SQLite is brought to the current schema; so is a server's database that holds no
    ledger yet. One that does is changed by `trademl.upgrade_ledger` alone: others may work on it.

    Parameters
    ----------
    where : str or Database
        SQLAlchemy URL, for example ``sqlite:///path/ledger.db``, or the settings of a server.
    spool : Path, optional
        Folder in which results wait while a server is away, see `trademl.ledger.writes.RESULTS`;
        everything fails at once where it is None.
    is_flushed : bool
        Write at once what waits there.

    Raises
    ------
    SchemaError
        If another version of trademl made the database.
    AwayError
        If its server cannot be reached now.
    StoreError
        If it cannot be opened.
    """

    def __init__(
        self, where: str | Database, *, spool: Path | None = None, is_flushed: bool = True
    ) -> None:
        self.database = as_database(where)
        self.spool: Spool | None = None
        if spool is not None and not self.database.is_file:
            self.spool = Spool(spool / self.database.spool_name)
        with database_errors(self.database.url):
            self.engine = open_engine(self.database)
            migrate(self.engine, may_upgrade=self.database.is_file)
        if is_flushed:
            self._flush_quietly()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session whose changes are committed together, or not at all."""
        with (
            database_errors(self.database.url),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def turn(self) -> Iterator[Session]:
        """Yield a session as `session` does; of all who take a turn, in any process, one works.

        Whoever looks before it writes needs one: else another may write in between. What each turn
        writes first is the row of the schema's version, as it is, whose lock lasts until its end.
        """
        with self.session() as session:
            session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = version_num"))  # noqa: S608
            yield session

    def record(self, *rows: Base) -> None:
        """Write rows in one transaction; a row whose primary key exists is replaced."""
        self._write([merged(row) for row in rows])

    def first(self, row: Row) -> Row:
        """Write a row unless one of its primary key stands; return the one that stands then."""
        mapper = inspect(type(row))
        with self.turn() as session:
            stands = session.get(type(row), mapper.primary_key_from_instance(row))
            if stands is None:
                session.add(row)
        return stands or row

    def replace(self, parent: Base, *children: tuple[type[Base], str, Rows]) -> None:
        """Write ``parent`` and its many rows in one transaction, over what stood there.

        Parameters
        ----------
        children : tuples of (table, key, rows)
            ``key`` is the column that refers to ``parent.id``; it is filled in here.
        """
        parent_id = parent.id  # type: ignore[attr-defined]
        self._write(
            [
                merged(parent),
                *(Write(table, rows, {key: parent_id}) for table, key, rows in children),
            ]
        )

    def rewrite(self, table: type[Base], where: Mapping[str, Any], rows: Rows) -> None:
        """Write ``rows``, each with the values of ``where``, over those that had these values."""
        self._write([Write(table, rows, where)])

    def get(self, table: type[Row], key: Any) -> Row | None:
        """Return the row of that primary key, or None."""
        with self.session() as session:
            return session.get(table, key)

    def rows(self, table: type[Row], **equals: Any) -> list[Row]:
        """Return the rows whose columns equal the given values, in order of the primary key."""
        statement = select(table).filter_by(**equals).order_by(*inspect(table).primary_key)
        with self.session() as session:
            return list(session.scalars(statement))

    def flush(self, *, again: bool = False) -> Drained:
        """Write what waited for this database, each result once.

        Parameters
        ----------
        again : bool
            Try those too that the database refused before.

        Raises
        ------
        AwayError
            If it is away again; what was written stays.
        CodecError
            If the file in which results wait is damaged.
        """
        if self.spool is None:
            return Drained()
        return self.spool.drain(lambda payload: self._apply(unpack(payload)), again=again)

    def _flush_quietly(self) -> None:
        """Write what waits; what the database refuses is no reason to stop."""
        drained = self.flush()
        if drained.n_written:
            _log.warning("%s: %d results that waited are written", self.database, drained.n_written)
        for reason in drained.refused:
            _log.warning("a result that waited was refused, see trademl ledger flush: %s", reason)

    def _write(self, writes: Sequence[Write]) -> None:
        """Write now; results may wait for a server that is away, behind those that wait already."""
        if self.spool is None or not may_wait(writes):
            self._apply(writes)
            return
        try:
            self._flush_quietly()
            self._apply(writes)
        except (AwayError, CloudError) as error:  # CloudError: the password could not be had
            self.spool.append(pack(writes))
            _log.warning("%s; results wait in %s, see docs/ledger.md", error, self.spool.path)

    def _apply(self, writes: Sequence[Write]) -> None:
        # rows that go with their parent wait for its row; rows alone have none to wait for
        with self.turn() if writes[0].where is not None else self.session() as session:
            apply(session, writes)
