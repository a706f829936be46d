"""The tick store: recordings of quotes in SQL, appended in order and never changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan

import numpy as np
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    func,
    insert,
    select,
    update,
)

from trademl.errors import StoreError
from trademl.ledger.database import database_errors, open_engine
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
    Column("flags", SmallInteger, nullable=False),
    sqlite_with_rowid=False,
)
_READ = ("ts_event", "bid", "ask", "mid_open", "high", "low", "flags")


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
            _METADATA.create_all(self.engine)

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
            The whole recording from its first quote; what is stored already is passed over.
        """
        with database_errors(self.url):
            number = self._number(recording_id, instrument, source)
            start = self._n_stored(number)
            statement = str(insert(_TICKS).compile(self.engine))
            for begin in range(start, len(quotes), BLOCK):
                rows = _rows(number, begin, quotes.slice(begin, begin + BLOCK))
                with self.engine.begin() as connection:
                    connection.exec_driver_sql(statement, rows)
                yield min(begin + BLOCK, len(quotes))
            with self.engine.begin() as connection:
                connection.execute(
                    update(_RECORDINGS)
                    .where(_RECORDINGS.c.number == number)
                    .values(is_complete=True)
                )

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
        statement = (
            select(*(_TICKS.c[name] for name in _READ))
            .where(_TICKS.c.recording == number.scalar_subquery())
            .order_by(_TICKS.c.seq)
        )
        with database_errors(self.url), self.engine.connect() as connection:
            columns = list(zip(*connection.execute(statement), strict=True))
        kinds = (np.int64, *[np.float64] * 5, np.uint8)
        return Quotes(*(np.array(c, k) for c, k in zip(columns, kinds, strict=True)))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _number(self, recording_id: str, instrument: str, source: str) -> int:
        find = select(_RECORDINGS.c.number).where(_RECORDINGS.c.id == recording_id)
        with self.engine.begin() as connection:
            if (number := connection.execute(find).scalar()) is None:
                new = {
                    "id": recording_id,
                    "instrument": instrument,
                    "source": source,
                    "is_complete": False,
                }
                connection.execute(insert(_RECORDINGS).values(new))
                number = connection.execute(find).scalar_one()
        return int(number)

    def _n_stored(self, number: int) -> int:
        last = select(func.max(_TICKS.c.seq)).where(_TICKS.c.recording == number)
        with self.engine.connect() as connection:
            found = connection.execute(last).scalar()
        return 0 if found is None else int(found) + 1


def _rows(number: int, begin: int, quotes: Quotes) -> list[tuple[object, ...]]:
    n = len(quotes)
    ts_event = quotes.ts_event.tolist()
    prices = [
        [None if isnan(x) else x for x in p.tolist()]
        for p in (quotes.bid, quotes.ask, quotes.mid_open, quotes.high, quotes.low)
    ]
    columns = (
        [number] * n,
        range(begin, begin + n),
        ts_event,
        ts_event,  # a replay receives each quote at its own time
        *prices,
        [None] * n,
        [None] * n,
        quotes.flags.tolist(),
    )
    return list(zip(*columns, strict=True))
