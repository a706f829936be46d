"""What is written into the ledger in one transaction: as values, so that it can wait on disk.

Writing the same again changes nothing: rows go over those that had their primary key, or over all
that had the values of ``where``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import msgspec
from sqlalchemy import Executable, delete, inspect
from sqlalchemy.orm import Mapper, Session

from trademl.errors import CodecError
from trademl.ledger import tables
from trademl.ledger.bulk import COPY_ROWS, ParquetRows, Rows, insert_rows
from trademl.ledger.tables import Base

if TYPE_CHECKING:
    import pyarrow as pa

# What a computation found. Nothing that decides anything is among it: looks, gates, reigns,
# deployments, leases, studies, orders. Of walk-forwards, later ones tell that they came first.
RESULTS: frozenset[type[Base]] = frozenset(
    {
        tables.Backtest,
        tables.Trade,
        tables.Equity,
        tables.Prediction,
        tables.Evaluation,
        tables.Run,
    }
)


@dataclass(frozen=True)
class Write:
    """Rows of one table.

    Parameters
    ----------
    rows : sequence of mapping, pyarrow.Table or ParquetRows
        Column to value, the same columns in each; without those of ``where``.
    where : mapping, optional
        Rows that have these values are deleted before; each new row gets them. Where it is None,
        each row replaces the one of its primary key.
    """

    table: type[Base]
    rows: Rows
    where: Mapping[str, Any] | None = None


def merged(row: Base) -> Write:
    """Return the write of one row over that of its primary key."""
    given = vars(row)
    mapper = cast("Mapper[Any]", inspect(type(row)))
    return Write(type(row), [{c.key: given[c.key] for c in mapper.column_attrs if c.key in given}])


def apply(session: Session, writes: Sequence[Write]) -> None:
    """Write within the session's transaction."""
    for write in writes:
        if write.where is None:
            for row in cast("Sequence[Mapping[str, Any]]", write.rows):
                put(session, write.table, row)
            continue
        session.execute(delete(write.table).filter_by(**write.where))
        insert_rows(session, write.table, write.where, write.rows)


def put(session: Session, table: type[Base], row: Mapping[str, Any]) -> None:
    """Write a row over the one of its primary key, in one statement.

    To look first and then insert would end with an error where another process inserts in between.
    """
    key = [column.name for column in cast("Mapper[Any]", inspect(table)).primary_key]
    values = {name: value for name, value in row.items() if name not in key} or dict(row)
    session.execute(_upsert(session.get_bind().dialect.name, table, row, key, values))


def _upsert(
    server: str, table: type[Base], row: Mapping[str, Any], key: list[str], values: dict[str, Any]
) -> Executable:
    # the module of the server at hand is loaded already; all three are 5 MB of every process
    statement = import_module(f"sqlalchemy.dialects.{server}").insert(table).values(row)
    if server in ("sqlite", "postgresql"):
        conflict = statement.on_conflict_do_update(index_elements=key, set_=values)
        return cast("Executable", conflict)
    return cast("Executable", statement.on_duplicate_key_update(values))


def may_wait(writes: Sequence[Write]) -> bool:
    """Return whether all of it may come later than it was told."""
    return all(write.table in RESULTS for write in writes)


class _Kept(msgspec.Struct):
    table: str
    rows: bytes | list[dict[str, Any]]
    where: dict[str, Any] | None


def pack(writes: Sequence[Write]) -> bytes:
    """Return writes as bytes: MessagePack, tables of pyarrow within as Arrow's own stream."""
    kept = [
        _Kept(
            write.table.__tablename__,
            [dict(row) for row in write.rows]
            if isinstance(write.rows, Sequence)
            else _stream(write.rows),
            None if write.where is None else dict(write.where),
        )
        for write in writes
    ]
    return msgspec.msgpack.encode(kept, enc_hook=_plain)


def unpack(payload: bytes) -> list[Write]:
    """Return the writes that `pack` made these bytes of.

    Raises
    ------
    CodecError
        If they are of a table that is not known.
    """
    known = {table.__tablename__: table for table in RESULTS}
    writes = []
    for kept in msgspec.msgpack.decode(payload, type=list[_Kept]):
        if kept.table not in known:
            raise CodecError(f"holds rows of table {kept.table}, which this trademl does not know")
        table = known[kept.table]
        rows: Rows = _table(kept.rows) if isinstance(kept.rows, bytes) else _typed(table, kept.rows)
        writes.append(Write(table, rows, kept.where))
    return writes


def _plain(value: Any) -> Any:
    """Return a number of numpy as Python's own."""
    return value.item()


def _typed(table: type[Base], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with times as times again; MessagePack keeps those without a zone as text."""
    mapper = cast("Mapper[Any]", inspect(table))
    times = [c.name for c in mapper.local_table.columns if c.type.python_type is datetime]
    for row in rows:
        for name in times:
            if isinstance(row.get(name), str):
                row[name] = datetime.fromisoformat(row[name])
    return rows


def _stream(rows: pa.Table | ParquetRows) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        for batch in rows.to_batches(max_chunksize=COPY_ROWS):
            writer.write_batch(batch)
    return cast("bytes", sink.getvalue().to_pybytes())


def _table(stream: bytes) -> pa.Table:
    import pyarrow as pa

    with pa.ipc.open_stream(stream) as reader:
        return reader.read_all()
