"""How often a span of test rows was looked at: every look makes the next one worth less.

A look counts the models that it chose among, times the scores at which flagged orders were counted.
Looks at spans of one instrument or one recording that overlap in time add up, whoever took them:
all workspaces that share a ledger share its looks.
"""

from __future__ import annotations

from sqlalchemy import or_, select

from trademl.etl.dataset import Split
from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact
from trademl.train.hyperparameters import LinearLearnerParameters
from trademl.train.network_config import is_network
from trademl.train.trials import TrialResult


def record_look(
    study: Artifact,
    trials: list[TrialResult],
    test: Split,
    ledger: Ledger,
    *,
    cuts: list[float],
) -> tables.Look:
    """Keep in the ledger that models of a study are measured on test rows; call it before.

    Parameters
    ----------
    study : Artifact
        Its dataset's row, and that of its batch, must stand in the ledger.
    trials : list of TrialResult
        Of the study; failed ones do not count.
    test : Split
        The rows that will be looked at.
    cuts : list of float
        Scores at which flagged orders will be counted; those of earlier looks at the same study
        are kept beside them.
    """
    trained = [trial for trial in trials if trial.failure is None]
    with ledger.turn() as session:
        if (look := session.get(tables.Look, study.id)) is None:
            dataset = session.get_one(tables.Dataset, study.manifest["parents"][0])
            batch = session.get_one(tables.Batch, dataset.batch_id)
            look = tables.Look(
                study_id=study.id,
                instrument=batch.instrument,
                recording_id=batch.recording_id,
                from_ns=int(test.as_of_N.min()),
                to_ns=int(test.exit_N.max()),
                n_trials=len(trained),
                n_models=sum(_num_models(trial) for trial in trained),
                cuts=[],
            )
            session.add(look)
        look.cuts = sorted({*cuts, *look.cuts})
    return look


def widen_look(ledger: Ledger, study_id: str, to_ns: int) -> None:
    """Let a study's look reach to ``to_ns``: its model was traded on what came after its test rows.

    A study whose models were never measured on test rows has no look, and gets none.
    """
    with ledger.turn() as session:
        if (look := session.get(tables.Look, study_id)) is not None:
            look.to_ns = max(look.to_ns, to_ns)


def count_looks(look: tables.Look, ledger: Ledger) -> int:
    """Return how many models and cuts were tried on the span of a look, itself included."""
    return sum(other.n_models * len(other.cuts) for other in overlapping_looks(look, ledger))


def overlapping_looks(look: tables.Look, ledger: Ledger) -> list[tables.Look]:
    """Return the looks at the same instrument or recording whose span touches that of a look."""
    other = tables.Look
    statement = (
        select(other)
        .where(
            or_(other.instrument == look.instrument, other.recording_id == look.recording_id),
            other.from_ns <= look.to_ns,
            other.to_ns >= look.from_ns,
        )
        .order_by(other.created_at, other.study_id)
    )
    with ledger.session() as session:
        return list(session.scalars(statement))


def _num_models(trial: TrialResult) -> int:
    if is_network(trial.hyperparameters):
        return 1
    return int(LinearLearnerParameters.from_strings(trial.hyperparameters).num_models)
