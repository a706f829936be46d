"""An allocation as rows of the ledger, from its manifest alone.

Bars of several assets take the place of a batch of orders, days of assets that of a dataset, the
walk that of a study, and its models are its trials: so whatever reads the ledger reads them too.
"""

from __future__ import annotations

from trademl.backtest.jobs import record_result
from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, ArtifactStore

INSTRUMENT_LENGTH = 80
OBJECTIVE = "validation:share_of_squared_error"


def record_allocation(
    allocation: Artifact, backtest: Artifact, store: ArtifactStore, ledger: Ledger
) -> None:
    """Write bars, rows, proof, walk, models, backtest and weights, over what stood there."""
    found, path = allocation.metrics, str(allocation.path)
    data = found["data"]
    ledger.record(
        tables.Batch(
            id=data["bars"],
            instrument=_instrument(allocation),
            recording_id=data["bars"],
            number=0,
            n_orders=data["rows"],
            first_entry_ns=data["from_ns"],
            last_exit_ns=data["to_ns"],
            label_rate=data["share_up"],
            path=path,
        )
    )
    ledger.record(
        tables.Dataset(
            id=data["id"],
            batch_id=data["bars"],
            n_train=found["fits"][-1]["n_rows"],
            n_validation=data["rows"] - found["fits"][-1]["n_rows"],
            n_test=0,
            feature_dim=len(data["columns"]),
            facts=dict(data),
            path=path,
        )
    )
    ledger.record(
        tables.Proof(
            id=f"proof-{data['id'].rpartition('-')[2]}",
            dataset_id=data["id"],
            is_proven=found["proof"]["is_proven"],
            evidence=dict(found["proof"]),
        )
    )
    _record_walk(allocation, ledger)
    _record_models(allocation, store, ledger)
    row = tables.Backtest(
        model_id=found["fits"][-1]["model"], dataset_id=data["id"], engines=["allocation"]
    )
    ledger.replace(
        tables.Backtest(
            id=backtest.id,
            path=str(backtest.path),
            metrics=dict(backtest.metrics),
            model_id=row.model_id,
            dataset_id=row.dataset_id,
            engines=row.engines,
        ),
        (tables.AllocationWeight, "backtest_id", found["quarters"]),
    )
    record_result(backtest, row, ledger)


def allocation_look(allocation: Artifact, ledger: Ledger) -> tables.Look:
    """Return the walk's look at its quarters, which is kept: every walk over a span counts."""
    if (look := ledger.get(tables.Look, allocation.id)) is not None:
        return look
    found = allocation.metrics
    look = tables.Look(
        study_id=allocation.id,
        instrument=_instrument(allocation),
        recording_id=found["data"]["bars"],
        from_ns=found["quarters"][0]["decided_at_ns"],
        to_ns=found["data"]["to_ns"],
        n_trials=1,
        n_models=1,
        cuts=[0.0],
    )
    return ledger.first(look)


def _instrument(allocation: Artifact) -> str:
    return ",".join(allocation.metrics["assets"])[:INSTRUMENT_LENGTH]


def _record_walk(allocation: Artifact, ledger: Ledger) -> None:
    found = allocation.metrics
    study = tables.Study(
        id=allocation.id,
        dataset_id=found["data"]["id"],
        name=None,
        objective=OBJECTIVE,
        direction="Maximize",
        seed=allocation.manifest["parameters"]["seed"],
        path=str(allocation.path),
    )
    trials = [
        {
            "number": fit["trial"],
            "status": "Completed",
            "objective": fit["validation_gain"],
            "hyperparameters": fit["hyperparameters"],
            "metrics": {OBJECTIVE: fit["validation_gain"], "n_rows": fit["n_rows"]},
            "refused_because": fit["reasons"],
        }
        for fit in found["fits"]
    ]
    ledger.replace(study, (tables.Trial, "study_id", trials))


def _record_models(allocation: Artifact, store: ArtifactStore, ledger: Ledger) -> None:
    found = allocation.metrics
    ledger.record(
        *(
            tables.Model(
                id=fit["model"],
                study_id=allocation.id,
                dataset_id=found["data"]["id"],
                trial_number=fit["trial"],
                status=fit["status"],
                verdict=fit["verdict"],
                reasons=fit["reasons"],
                threshold=0.0,
                metrics={"validation_gain": fit["validation_gain"], "n_rows": fit["n_rows"]},
                path=str(store.get(fit["model"]).path),
            )
            for fit in found["fits"]
        )
    )
