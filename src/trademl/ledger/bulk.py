"""Many rows of one table into a database, the fastest way that its server has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from trademl.ledger.tables import Base

COPY_FROM = 1000  # rows; below, a statement costs no more than a COPY


def insert_rows(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows within the session's transaction; PostgreSQL takes many as one COPY.

    Parameters
    ----------
    rows : sequence of mapping
        Column to value, the same columns in each.
    """
    if not rows:
        return
    if session.get_bind().dialect.name == "postgresql" and _can_copy(table, rows):
        _copy(session, table, rows)
    else:
        session.execute(insert(table), list(rows))


def _can_copy(table: type[Base], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether COPY says the same: no column is left to a default of Python or to JSON."""
    columns = table.metadata.tables[table.__tablename__].columns
    given = rows[0].keys()
    return len(rows) >= COPY_FROM and all(
        column.name in given and column.type.python_type is not dict for column in columns
    )


def _copy(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(rows[0])
    driver: Any = session.connection().connection.driver_connection
    columns = ", ".join(f'"{name}"' for name in names)
    with (
        driver.cursor() as cursor,
        cursor.copy(f'COPY "{table.__tablename__}" ({columns}) FROM STDIN') as copy,
    ):
        for row in rows:
            copy.write_row([row[name] for name in names])
