"""The table of what a model server did on its own: steps on the ladder, models that took over."""

from __future__ import annotations

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from trademl.ledger.tables import Base, Json


class ServingEvent(Base):
    """Something that happened in a server, in the order of its numbers; a gap is one dropped.

    The key lets the server write an event again that may be there already.
    """

    __tablename__ = "serving_events"

    server: Mapped[str] = mapped_column(primary_key=True)  # one process, from start to end
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at_ns: Mapped[int]
    strategy: Mapped[str] = mapped_column(String(300), index=True)
    kind: Mapped[str]  # tier | model
    old: Mapped[str] = mapped_column(String(300))
    new: Mapped[str] = mapped_column(String(300))
    reason: Mapped[str] = mapped_column(Text)
    facts: Mapped[Json]  # the load that was measured, for a tier
