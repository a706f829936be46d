"""What serving said of each order, as the ledger holds it: decisions of a live run, or predictions.

Shape letters: N orders in order of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from trademl.backtest.live_history import Live, live_at
from trademl.backtest.served_answers import NS_PER_MS, Answers
from trademl.errors import DataError, StoreError
from trademl.ledger import Ledger, tables
from trademl.ledger.live_tables import LiveDecision, LiveRun
from trademl.serve.ladder import ABSTAIN, BIGGEST, CACHED

REFUSED = ("below", "abstained")  # outcomes that would send no order, whatever else stood


@dataclass(frozen=True)
class LiveRecord:
    """The decisions of one live run about orders.

    Parameters
    ----------
    run_id, model_id : str
        The run, and the biggest model of its ladder, as far as one answered.
    smaller : tuple of str
        Ids of other models that answered.
    from_ns, to_ns : int
        Its first and its last decision among these orders, UTC nanoseconds.
    answers : Answers
        Of each order; one that the run did not decide on is an abstention.
    """

    run_id: str
    model_id: str
    smaller: tuple[str, ...]
    from_ns: int
    to_ns: int
    answers: Answers

    def covers(self, as_of_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which orders lie between its first and its last decision."""
        return (as_of_N >= self.from_ns) & (as_of_N <= self.to_ns)

    def take(self, rows: NDArray[np.bool_]) -> LiveRecord:
        """Return the record of some of its orders."""
        return LiveRecord(
            self.run_id,
            self.model_id,
            self.smaller,
            self.from_ns,
            self.to_ns,
            self.answers.take(rows),
        )


def live_record(
    ledger: Ledger, strategy: str, as_of_N: NDArray[np.int64], *, run_id: str | None = None
) -> LiveRecord | None:
    """Read what a strategy's live run decided on the quotes that orders were decided on.

    Parameters
    ----------
    as_of_N : ndarray of int64
        When each order was decided, UTC nanoseconds.
    run_id : str, optional
        The run; where left out, the one that decided most of the orders, and a run that sent its
        orders rather than one in shadow.

    Returns
    -------
    LiveRecord or None
        None where no run was named and none decided any of the orders.

    Raises
    ------
    StoreError
        If the ledger has no such run.
    DataError
        If the named run decided none of the orders, or none is named and two decided as many.
    """
    runs = _runs(ledger, strategy, run_id)
    decided = {run.id: _decisions(ledger, run.id, as_of_N) for run in runs}
    runs = [run for run in runs if decided[run.id]]
    if not runs:
        if run_id is not None:
            raise DataError(
                f"{run_id} decided none of these orders: replay the dataset of the time that it "
                "traded"
            )
        return None
    rank = {run.id: (len(decided[run.id]), run.mode == "paper") for run in runs}
    best = [run for run in runs if rank[run.id] == max(rank.values())]
    if len(best) > 1:
        raise DataError(
            f"{len(best)} live runs of {strategy} decided these orders: name one of them with "
            f"--live: {', '.join(run.id for run in best)}"
        )
    return _record(best[0], decided[best[0].id], as_of_N)


def _runs(ledger: Ledger, strategy: str, run_id: str | None) -> list[LiveRun]:
    if run_id is None:
        return ledger.rows(LiveRun, strategy=strategy)
    if (run := ledger.get(LiveRun, run_id)) is None:
        raise StoreError(f"the ledger has no live run {run_id}: see trademl serve live")
    return [run]


def _decisions(ledger: Ledger, run_id: str, as_of_N: NDArray[np.int64]) -> dict[int, LiveDecision]:
    """Return the decisions of a run by their times, those on the quotes of these orders."""
    if not len(as_of_N):
        return {}
    statement = (
        select(LiveDecision)
        .where(LiveDecision.run_id == run_id)
        .where(LiveDecision.as_of_ns.between(int(as_of_N.min()), int(as_of_N.max())))
    )
    wanted = set(as_of_N.tolist())
    with ledger.session() as session:
        return {row.as_of_ns: row for row in session.scalars(statement) if row.as_of_ns in wanted}


def _record(
    run: LiveRun, decided: dict[int, LiveDecision], as_of_N: NDArray[np.int64]
) -> LiveRecord:
    others = {row.model_id for row in decided.values() if row.score is not None}
    biggest = _biggest(run, decided)
    smaller = tuple(sorted(others - {biggest}))
    place = {biggest: 0} | {one: k for k, one in enumerate(smaller, start=1)}
    n = len(as_of_N)
    score, model, tier = np.full(n, np.nan), np.full(n, -1), np.full(n, ABSTAIN, object)
    latency_ns, age_ns = np.zeros(n, np.int64), np.zeros(n, np.int64)
    took = np.zeros(n, bool)
    for k, at_ns in enumerate(as_of_N.tolist()):
        if (row := decided.get(at_ns)) is None:
            continue
        latency_ns[k] = round(row.latency_us * 1_000)
        if row.score is None:
            continue
        score[k], model[k], tier[k] = row.score, place[row.model_id], row.tier
        took[k] = row.outcome not in REFUSED
        if row.tier == CACHED:  # one younger than a tick of its header's clock says 0
            age_ns[k] = max(round(row.age_ms * NS_PER_MS), 1)
    answers = Answers(score, model, latency_ns, age_ns, tier, took)
    return LiveRecord(run.id, biggest, smaller, min(decided), max(decided), answers)


def _biggest(run: LiveRun, decided: dict[int, LiveDecision]) -> str:
    """Return the biggest model of a run's ladder, which need not be the deployed one."""
    first = {row.model_id for row in decided.values() if row.tier == BIGGEST and row.model_id}
    return first.pop() if len(first) == 1 else run.model_id


def recorded_predictions(
    ledger: Ledger,
    spans: Sequence[Live],
    dataset_id: str,
    order_id_N: NDArray[np.int64],
    as_of_N: NDArray[np.int64],
) -> Answers:
    """Read what was answered about a dataset's orders from the ledger's predictions.

    An order is answered by the deployment that was live at it, or by any of ``spans`` where none of
    them was live in the whole span; without a prediction it is an abstention. Predictions hold no
    times: their latency is 0, their tier the biggest.
    """
    which_N, score = live_at(spans, as_of_N), np.full(len(order_id_N), np.nan)
    for number, span in enumerate(spans):
        by_order = {
            row.order_id: row.score
            for row in ledger.rows(
                tables.Prediction, deployment_id=span.deployment_id, dataset_id=dataset_id
            )
        }
        told = np.array([by_order.get(int(one), np.nan) for one in order_id_N])
        own = (which_N == number) if (which_N >= 0).any() else np.isnan(score)
        score[own] = told[own]
    zero = np.zeros(len(score), np.int64)
    return Answers(score, np.where(np.isnan(score), -1, 0), zero, zero)
