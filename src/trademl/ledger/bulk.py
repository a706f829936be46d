"""Many rows of one table into a database, the fastest way that its server has."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sqlalchemy import Table, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from trademl.ledger.tables import Base

if TYPE_CHECKING:
    import pyarrow as pa

Rows: TypeAlias = "Sequence[Mapping[str, Any]] | pa.Table | ParquetRows"
COPY_FROM = 1000  # rows; below, a statement costs no more than a COPY
COPY_ROWS = 65_536  # of one write into a COPY
INSERT_ROWS = 5_000  # of one INSERT; PyMySQL makes statements of many rows of them


class ParquetRows:
    """Rows of a Parquet file, read a piece at a time: memory does not grow with the file.

    It offers of `pyarrow.Table` what writing needs.

    Parameters
    ----------
    path : Path
        Of columns named as those of the table that they go into.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, pre_buffer=False)  # True keeps all bytes ever read
        self.schema: pa.Schema = self._file.schema_arrow
        self.column_names: list[str] = self.schema.names

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def to_batches(self, max_chunksize: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in pieces of at most that many."""
        yield from self._file.iter_batches(batch_size=max_chunksize)


def insert_rows(session: Session, table: type[Base], where: Mapping[str, Any], rows: Rows) -> None:
    """Insert rows within the session's transaction; PostgreSQL takes many as one COPY.

    Parameters
    ----------
    where : mapping
        Columns that have one value in all rows.
    rows : sequence of mapping, pyarrow.Table or ParquetRows
        The other columns, the same in each row.
    """
    if session.get_bind().dialect.name == "postgresql" and _can_copy(table, where, rows):
        _copy(session, table, where, rows)
        return
    statement = insert(_core(table))
    for chunk in _chunks(rows):
        session.execute(statement, [{**where, **row} for row in chunk])


def _can_copy(table: type[Base], where: Mapping[str, Any], rows: Rows) -> bool:
    """Return whether COPY says the same: plain values, and no column left to a default."""
    if len(rows) < COPY_FROM:
        return False
    names = rows[0] if isinstance(rows, Sequence) else rows.column_names
    columns = {column.name: column for column in _core(table).columns}
    left_out = columns.keys() - {*where, *names}
    return {*where, *names} <= columns.keys() and all(
        column.type.python_type in (int, float, str)
        and (column.default is None or column.name not in left_out)
        for column in columns.values()
    )


def _copy(session: Session, table: type[Base], where: Mapping[str, Any], rows: Rows) -> None:
    """Send rows as CSV, which pyarrow writes a hundred times faster than a loop of Python.

    A float's digits read back as the same float; text is always quoted, so that a bare nothing is
    NULL.
    """
    import pyarrow as pa

    arrow = pa.Table.from_pylist(list(rows)) if isinstance(rows, Sequence) else rows
    names = ", ".join(f'"{name}"' for name in (*where, *arrow.column_names))
    statement = f'COPY "{table.__tablename__}" ({names}) FROM STDIN (FORMAT csv)'
    connection = session.connection()
    error_kind: Any = connection.dialect.loaded_dbapi.Error
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for batch in arrow.to_batches(max_chunksize=COPY_ROWS):
                copy.write(_csv(batch, where))
    except error_kind as error:  # SQLAlchemy does not see what goes past it
        if is_lost := bool(driver.closed or driver.broken):
            session.invalidate()
        raise DBAPIError.instance(
            statement, None, error, error_kind, connection_invalidated=is_lost
        ) from error


def _csv(batch: pa.RecordBatch, where: Mapping[str, Any]) -> memoryview:
    import pyarrow as pa
    from pyarrow import csv

    constant = {name: pa.repeat(pa.scalar(value), len(batch)) for name, value in where.items()}
    columns = [*constant.values(), *batch.columns]
    whole = pa.RecordBatch.from_arrays(columns, names=[*constant, *batch.schema.names])
    sink = io.BytesIO()
    csv.write_csv(whole, sink, csv.WriteOptions(include_header=False, quoting_style="needed"))
    return sink.getbuffer()


def _chunks(rows: Rows) -> Iterator[Sequence[Mapping[str, Any]]]:
    if isinstance(rows, Sequence):
        for first in range(0, len(rows), INSERT_ROWS):
            yield rows[first : first + INSERT_ROWS]
        return
    for batch in rows.to_batches(max_chunksize=INSERT_ROWS):
        if len(batch):
            yield batch.to_pylist()


def _core(table: type[Base]) -> Table:
    return cast("Table", table.__table__)
