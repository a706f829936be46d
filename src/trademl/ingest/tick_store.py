"""The tick store: recordings of quotes in SQL, appended in order and never changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from trademl.errors import StoreError
from trademl.ledger.connections import open_engine
from trademl.ledger.failures import database_errors
from trademl.ledger.schema import one_at_a_time
from trademl.market.events import Event
from trademl.market.quotes import Quotes

BLOCK = 50_000  # quotes a transaction: what a kill can cost

_METADATA = MetaData()
_RECORDINGS = Table(
    "recordings",
    _METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(80), unique=True, nullable=False),
    Column("instrument", String(80), nullable=False),
    Column("source", String(255), nullable=False),
    Column("is_complete", Boolean, nullable=False, default=False),
)
_TICKS = Table(
    "ticks",
    _METADATA,
    Column("recording", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("ts_event", BigInteger, nullable=False),
    Column("ts_recv", BigInteger, nullable=False),
    Column("bid", Double),
    Column("ask", Double),
    Column("mid_open", Double),
    Column("high", Double),
    Column("low", Double),
    Column("market_state", String(20)),
    Column("market_delay_s", Double),
    Column("bid_size", Double),
    Column("ask_size", Double),
    Column("flags", SmallInteger, nullable=False),
    sqlite_with_rowid=False,
)
_EVENTS = Table(
    "adjustments",
    _METADATA,
    Column("recording", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("ts_event", BigInteger, nullable=False),
    Column("split", Double, nullable=False),
    Column("dividend", Double, nullable=False),
    Column("roll_gap", Double, nullable=False),
    Column("is_roll", Boolean, nullable=False),
)
_OF_EVENT = ("ts_event", "split", "dividend", "roll_gap", "is_roll")
_READ = {
    "ts_event": np.int64,
    "bid": np.float64,
    "ask": np.float64,
    "mid_open": np.float64,
    "high": np.float64,
    "low": np.float64,
    "flags": np.uint8,
}
_READ_IF_ANY = {
    "market_state": np.object_,
    "market_delay_s": np.float64,
    "bid_size": np.float64,
    "ask_size": np.float64,
}


@dataclass(frozen=True)
class Recording:
    """What the store knows of one recording."""

    id: str
    instrument: str
    source: str
    is_complete: bool
    n_quotes: int


class TickStore:
    """Quotes by recording, in a SQL database.

    Appending is idempotent by sequence number: a block that was acknowledged is there whole, and
    `n_quotes` says where to go on after a crash.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, for example ``sqlite:///path/ticks.db``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with database_errors(url):
            self.engine = open_engine(url)
            if not self._is_whole():
                self._make_tables()

    def recordings(self) -> list[Recording]:
        """Return every recording, oldest first."""
        count = (
            select(func.count()).where(_TICKS.c.recording == _RECORDINGS.c.number).scalar_subquery()
        )
        names = ("id", "instrument", "source", "is_complete", "n_quotes")
        columns = [_RECORDINGS.c[name] for name in names[:-1]]
        with database_errors(self.url), self.engine.connect() as connection:
            rows = connection.execute(select(*columns, count).order_by(_RECORDINGS.c.number))
            return [Recording(**dict(zip(names, row, strict=True))) for row in rows]

    def find(self, recording_id: str) -> Recording | None:
        """Return what is known of a recording, or None."""
        return next((r for r in self.recordings() if r.id == recording_id), None)

    def append(
        self, recording_id: str, instrument: str, source: str, quotes: Quotes
    ) -> Iterator[int]:
        """Store the quotes that are not there yet, a block a transaction; yield the number stored.

        Parameters
        ----------
        quotes : Quotes
            The whole recording from its first quote; what is stored already is passed over, and so
            is what another process stores meanwhile.
        """
        with database_errors(self.url):
            number = self._number(recording_id, instrument, source)
            self._keep_events(number, quotes.events)
            while (n_stored := self._append_block(number, quotes)) is not None:
                yield n_stored

    def load(self, recording_id: str) -> Quotes:
        """Return a recording's quotes in order.

        Raises
        ------
        StoreError
            If the store has no such recording.
        """
        if self.find(recording_id) is None:
            raise StoreError(f"{self.url}: holds no recording {recording_id}; ingest it first")
        number = select(_RECORDINGS.c.number).where(_RECORDINGS.c.id == recording_id)
        of_recording = _TICKS.c.recording == number.scalar_subquery()
        held = select(*(func.max(_TICKS.c[name]) for name in _READ_IF_ANY)).where(of_recording)
        with database_errors(self.url), self.engine.connect() as connection:
            last = zip(_READ_IF_ANY.items(), connection.execute(held).one(), strict=True)
            kinds = _READ | dict(item for item, value in last if value is not None)
            statement = (
                select(*(_TICKS.c[name] for name in kinds))
                .where(of_recording)
                .order_by(_TICKS.c.seq)
            )
            columns = zip(*connection.execute(statement), strict=True)
            arrays = {n: np.array(c, kinds[n]) for n, c in zip(kinds, columns, strict=True)}
            happened = (
                select(*(_EVENTS.c[name] for name in _OF_EVENT))
                .where(_EVENTS.c.recording == number.scalar_subquery())
                .order_by(_EVENTS.c.seq)
            )
            events = tuple(Event(*row) for row in connection.execute(happened))
            return Quotes(**arrays, events=events)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _is_whole(self) -> bool:
        found = inspect(self.engine)
        return {t.name for t in _METADATA.tables.values()} <= set(found.get_table_names()) and {
            column.name for column in _TICKS.columns
        } <= {column["name"] for column in found.get_columns(_TICKS.name)}

    def _make_tables(self) -> None:
        """Add what is missing, one process at a time; columns are empty in older recordings."""
        with self.engine.begin() as connection, one_at_a_time(connection):
            _METADATA.create_all(connection)
            found = {column["name"] for column in inspect(connection).get_columns(_TICKS.name)}
            for column in (c for c in _TICKS.columns if c.name not in found):
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE ticks ADD COLUMN {column.name} {kind}")

    def _append_block(self, number: int, quotes: Quotes) -> int | None:
        """Store the next block and return how many quotes are stored then; None if all are.

        The row of the recording is written first: its lock keeps others from the same block.
        """
        of_recording = update(_RECORDINGS).where(_RECORDINGS.c.number == number)
        with self.engine.begin() as connection:
            connection.execute(of_recording.values(is_complete=_RECORDINGS.c.is_complete))
            begin = _n_stored(connection, number)
            if begin >= len(quotes):
                connection.execute(of_recording.values(is_complete=True))
                return None
            rows = _rows(number, begin, quotes.slice(begin, begin + BLOCK))
            connection.exec_driver_sql(str(insert(_TICKS).compile(self.engine)), rows)
        return begin + len(rows)

    def _keep_events(self, number: int, events: Sequence[Event]) -> None:
        rows = [
            {"recording": number, "seq": seq} | {name: getattr(event, name) for name in _OF_EVENT}
            for seq, event in enumerate(events)
        ]
        with self.engine.begin() as connection:
            connection.execute(delete(_EVENTS).where(_EVENTS.c.recording == number))
            if rows:
                connection.execute(insert(_EVENTS), rows)

    def _number(self, recording_id: str, instrument: str, source: str) -> int:
        find = select(_RECORDINGS.c.number).where(_RECORDINGS.c.id == recording_id)
        new = {
            "id": recording_id,
            "instrument": instrument,
            "source": source,
            "is_complete": False,
        }
        with suppress(IntegrityError), self.engine.begin() as connection:  # another was quicker
            if connection.execute(find).scalar() is None:
                connection.execute(insert(_RECORDINGS).values(new))
        with self.engine.connect() as connection:
            return int(connection.execute(find).scalar_one())


def _n_stored(connection: Connection, number: int) -> int:
    last = select(func.max(_TICKS.c.seq)).where(_TICKS.c.recording == number)
    found = connection.execute(last).scalar()
    return 0 if found is None else int(found) + 1


def _rows(number: int, begin: int, quotes: Quotes) -> list[tuple[object, ...]]:
    n = len(quotes)
    ts_event = quotes.ts_event.tolist()
    prices = [
        _nan_as_none(p) for p in (quotes.bid, quotes.ask, quotes.mid_open, quotes.high, quotes.low)
    ]
    columns = (
        [number] * n,
        range(begin, begin + n),
        ts_event,
        ts_event,  # a replay receives each quote at its own time
        *prices,
        [None] * n if quotes.market_state is None else quotes.market_state.tolist(),
        *(
            [None] * n if column is None else _nan_as_none(column)
            for column in (quotes.market_delay_s, quotes.bid_size, quotes.ask_size)
        ),
        quotes.flags.tolist(),
    )
    return list(zip(*columns, strict=True))


def _nan_as_none(column: NDArray[np.float64]) -> list[float | None]:
    return [None if isnan(x) else x for x in column.tolist()]
