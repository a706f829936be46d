"""The tables of live trading: orders and fills, who may trade, and the hedges of outages."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from trademl.ledger.tables import Base, Json


class BrokerOrder(Base):
    """An order on its way to a broker: decided, sent, done; see `trademl.live.outbox`."""

    __tablename__ = "broker_orders"

    key: Mapped[str] = mapped_column(primary_key=True)
    strategy: Mapped[str] = mapped_column(index=True)
    instrument: Mapped[str]
    side: Mapped[str]  # buy | sell
    kind: Mapped[str]  # entry | exit | hedge
    quantity: Mapped[float]
    limit_price: Mapped[float | None]
    status: Mapped[str] = mapped_column(index=True)
    created_at_ns: Mapped[int]
    sent_at_ns: Mapped[int | None]
    lease: Mapped[str | None]  # it goes out only while this lease has
    token: Mapped[int | None]  # this token
    reason: Mapped[str] = mapped_column(Text)  # of its status, where one must be told
    payload: Mapped[Json]


class BrokerFilled(Base):
    """A fill of a broker's order, as the broker told it."""

    __tablename__ = "broker_fills"

    order_key: Mapped[str] = mapped_column(ForeignKey("broker_orders.key"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    ts_event_ns: Mapped[int]
    quantity: Mapped[float]
    price: Mapped[float]
    fees: Mapped[float]


class BrokerCursor(Base):
    """Up to where a broker's fills are in the ledger."""

    __tablename__ = "broker_cursors"

    broker: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[str] = mapped_column(String(200))


class Lease(Base):
    """Who alone may trade, and until when by the database's own clock."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    home: Mapped[str]  # the region that it belongs to
    region: Mapped[str]  # the one that has it, or had it last
    holder: Mapped[str]  # a process of that region
    token: Mapped[int]  # one more with each new holder
    home_token: Mapped[int]  # the last one that whoever trades had
    expires_at_ms: Mapped[int]  # since 1970, by the database's clock


class Hedge(Base):
    """What one outage of a region made a surviving region do: the key lets only one through."""

    __tablename__ = "hedges"

    lease: Mapped[str] = mapped_column(primary_key=True)
    home_token: Mapped[int] = mapped_column(primary_key=True)  # with which the region went away
    strategy: Mapped[str]
    region: Mapped[str]  # that hedged
    fired_at_ns: Mapped[int]
    recovered_at_ns: Mapped[int | None]
    report: Mapped[Json]


class LiveRun(Base):
    """A strategy trading a feed live, on paper or in shadow; taken up again under the same id."""

    __tablename__ = "live_runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    strategy: Mapped[str] = mapped_column(index=True)
    model_id: Mapped[str]
    feed: Mapped[str] = mapped_column(Text)
    mode: Mapped[str]  # paper | shadow
    status: Mapped[str]  # running | stopped | finished
    n_quotes: Mapped[int]  # up to which decisions are in the ledger
    last_ns: Mapped[int]
    summary: Mapped[Json]


class LiveDecision(Base):
    """What a live run decided on a quote, and from which tier of the ladder."""

    __tablename__ = "live_decisions"

    run_id: Mapped[str] = mapped_column(ForeignKey("live_runs.id"), primary_key=True)
    quote_index: Mapped[int] = mapped_column(primary_key=True)
    as_of_ns: Mapped[int]  # of the newest quote that its features read
    outcome: Mapped[str]  # order | below | busy | halted | rejected | shadow | abstained
    score: Mapped[float | None]
    tier: Mapped[str]
    model_id: Mapped[str]
    age_ms: Mapped[float]  # of a score that was made before
    latency_us: Mapped[float]  # from the question to the answer, by the wall clock
    reason: Mapped[str] = mapped_column(Text)
    order_key: Mapped[str | None]
