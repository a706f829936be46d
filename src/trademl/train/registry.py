"""Champion and challenger of each strategy: what was live, from when to when, and why.

A reign ends in the transaction that begins the next, so that a strategy has one champion or none.
Two promotions at once write the same primary key: one is let through, the other is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from trademl.errors import ClashError, RegistryError
from trademl.ledger import Ledger, tables

How = Literal["gate", "hand", "forced", "rollback"]


@dataclass(frozen=True)
class Reigned:
    """A span of time in which a model was champion.

    Parameters
    ----------
    from_at, to_at : datetime
        UTC; ``to_at`` is None while it lasts.
    how : {"gate", "hand", "forced", "rollback"}
        Forced: against, or without, a verdict of the gate.
    why : str
        In words.
    gate_id : str or None
        The verdict that it rests on.
    """

    number: int
    model_id: str
    from_at: datetime
    to_at: datetime | None
    how: str
    why: str
    gate_id: str | None


def champion(ledger: Ledger, strategy: str) -> str | None:
    """Return the id of the model that is live for a strategy, or None."""
    reigns = history(ledger, strategy)
    return reigns[-1].model_id if reigns else None


def challenger(ledger: Ledger, strategy: str) -> str | None:
    """Return the model that the gate judged last and holds back, or None."""
    with ledger.session() as session:
        newest = session.scalars(
            select(tables.Gate)
            .filter_by(strategy=strategy)
            .order_by(tables.Gate.created_at.desc())
            .limit(1)
        ).first()
    return newest.model_id if newest and newest.verdict == "hold" else None


def history(ledger: Ledger, strategy: str) -> list[Reigned]:
    """Return every reign of a strategy, oldest first."""
    return [_reigned(row) for row in ledger.rows(tables.Reign, strategy=strategy)]


def known_strategies(ledger: Ledger) -> list[str]:
    """Return the strategies that the gate or a promotion has named."""
    with ledger.session() as session:
        named = (session.scalars(select(t.strategy)) for t in (tables.Gate, tables.Reign))
        return sorted({name for names in named for name in names})


def strategies_of(ledger: Ledger, model_id: str) -> list[str]:
    """Return the strategies of which a model is the champion now."""
    reigns = ledger.rows(tables.Reign, model_id=model_id)
    return [reign.strategy for reign in reigns if reign.to_at is None]


def last_gate(ledger: Ledger, strategy: str, model_id: str) -> tables.Gate | None:
    """Return what the gate said last about a model, or None."""
    with ledger.session() as session:
        return _last_gate(session, strategy, model_id)


def was_taken_back(ledger: Ledger, strategy: str, model_id: str) -> Reigned | None:
    """Return the rollback that ended a model's last reign, or None."""
    reigns = history(ledger, strategy)
    last = max((k for k, r in enumerate(reigns) if r.model_id == model_id), default=None)
    if last is None or last + 1 == len(reigns) or reigns[last + 1].how != "rollback":
        return None
    return reigns[last + 1]


def promote(
    ledger: Ledger,
    strategy: str,
    model_id: str,
    *,
    how: How = "hand",
    why: str = "",
    force: str | None = None,
    now: datetime | None = None,
) -> Reigned:
    """Make a model the champion of a strategy, in one transaction.

    Promoting the champion again changes nothing.

    Parameters
    ----------
    how : {"gate", "hand"}
        Who asks.
    why : str
        A reason to be kept.
    force : str, optional
        Promote without the gate's consent, for this reason, which is kept.
    now : datetime, optional
        UTC.

    Raises
    ------
    RegistryError
        If the model is unknown; the gate did not say promote and ``force`` is not given; the
        champion has changed since the gate compared; or another promotion came first.
    """
    with _one_wins(strategy), ledger.session() as session:
        if session.get(tables.Model, model_id) is None:
            raise RegistryError(
                f"{model_id} is no model of this ledger: see trademl models list --json"
            )
        current = _current(session, strategy)
        if current is not None and current.model_id == model_id:
            return _reigned(current)
        gate = _last_gate(session, strategy, model_id)
        refusal = _refusal(strategy, model_id, gate, current.model_id if current else None)
        if refusal and force is None:
            raise RegistryError(f"{refusal}, or give --force REASON, which is kept")
        is_forced = refusal is not None
        return _begin(
            session,
            strategy,
            model_id,
            current,
            how="forced" if is_forced else how,
            why=(force or "") if is_forced else why or force or _default_reason(how),
            gate_id=gate.id if gate else None,
            restores=None,
            now=now,
        )


def rollback(
    ledger: Ledger, strategy: str, *, why: str = "", now: datetime | None = None
) -> Reigned:
    """Bring back the champion before this one, in one transaction.

    A second rollback goes back further: it does not return to what was rolled back. The gate does
    not promote a model again that was taken back.

    Raises
    ------
    RegistryError
        If there is nothing to go back to, or a promotion came in between.
    """
    with _one_wins(strategy), ledger.session() as session:
        current = _current(session, strategy)
        base = (current.restores or current.number) if current else 0
        before = session.get(tables.Reign, (strategy, base - 1))
        if current is None or before is None:
            raise RegistryError(
                f"strategy {strategy} has no earlier champion to go back to: see trademl models "
                "list"
            )
        return _begin(
            session,
            strategy,
            before.model_id,
            current,
            how="rollback",
            why=why or f"{current.model_id} taken back",
            gate_id=before.gate_id,
            restores=before.restores or before.number,
            now=now,
        )


def _refusal(
    strategy: str, model_id: str, gate: tables.Gate | None, champion_id: str | None
) -> str | None:
    """Return why a model may not be promoted and what to do, or None where it may."""
    if gate is None:
        return (
            f"{model_id} was not judged by the gate for strategy {strategy}: run trademl models "
            f"gate {model_id}"
        )
    if gate.verdict != "promote":
        reasons = "; ".join(gate.reasons)
        return f"the gate's verdict on {model_id} is {gate.verdict} ({reasons}): train another"
    if gate.champion_id != champion_id:
        return (
            f"the gate compared {model_id} with {gate.champion_id or 'no champion'}, and the "
            f"champion is {champion_id or 'nobody'} now: run trademl models gate {model_id}"
        )
    return None


def _default_reason(how: How) -> str:
    return "the gate said promote" if how == "gate" else "by hand, as the gate said promote"


def _begin(
    session: Session,
    strategy: str,
    model_id: str,
    current: tables.Reign | None,
    *,
    how: How,
    why: str,
    gate_id: str | None,
    restores: int | None,
    now: datetime | None,
) -> Reigned:
    """End the current reign and begin the next; its number is what two promotions clash on."""
    at = now or datetime.now(UTC)
    row = tables.Reign(
        strategy=strategy,
        number=current.number + 1 if current else 1,
        model_id=model_id,
        from_at=at,
        to_at=None,
        how=how,
        why=why,
        gate_id=gate_id,
        restores=restores,
    )
    session.add(row)
    session.flush()
    if current is not None:
        current.to_at = at
    return _reigned(row)


@contextmanager
def _one_wins(strategy: str) -> Iterator[None]:
    """Turn the clash of two promotions into one line."""
    try:
        yield
    except ClashError as error:
        raise RegistryError(
            f"another promotion of strategy {strategy} came first and stands: look at trademl "
            "models list, then try again"
        ) from error


def _current(session: Session, strategy: str) -> tables.Reign | None:
    newest = (
        select(tables.Reign)
        .filter_by(strategy=strategy)
        .order_by(tables.Reign.number.desc())
        .limit(1)
    )
    return session.scalars(newest).first()


def _last_gate(session: Session, strategy: str, model_id: str) -> tables.Gate | None:
    newest = (
        select(tables.Gate)
        .filter_by(strategy=strategy, model_id=model_id)
        .order_by(tables.Gate.created_at.desc())
        .limit(1)
    )
    return session.scalars(newest).first()


def _reigned(row: tables.Reign) -> Reigned:
    ended = _utc(row.to_at) if row.to_at else None
    return Reigned(
        row.number, row.model_id, _utc(row.from_at), ended, row.how, row.why, row.gate_id
    )


def _utc(at: datetime) -> datetime:
    """Return a time with its zone, which SQLite forgets."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
