"""Rows of a ledger that others hang on, made by hand."""

from __future__ import annotations

from datetime import UTC, datetime

from trademl.ledger import Ledger, tables
from trademl.store.artifacts import Artifact, ArtifactStore


def add_batch(ledger: Ledger, identity="batch-1", *, instrument="ES", recording="recording-1"):
    ledger.record(
        tables.Batch(
            id=identity, instrument=instrument, recording_id=recording, number=0, n_orders=9,
            first_entry_ns=0, last_exit_ns=9, label_rate=0.5, path="/p",
        )
    )  # fmt: skip


def add_study(ledger: Ledger, identity="study-1", *, dataset="dataset-1", batch="batch-1"):
    ledger.record(
        tables.Dataset(
            id=dataset, batch_id=batch, n_train=9, n_validation=9, n_test=9, feature_dim=1,
            facts={}, path="/p",
        )
    )  # fmt: skip
    ledger.record(
        tables.Study(
            id=identity, dataset_id=dataset, objective="validation:precision",
            direction="Maximize", seed=1, path="/p",
        )
    )  # fmt: skip


def add_model(ledger: Ledger, identity: str, *, study="study-1", dataset="dataset-1"):
    ledger.record(
        tables.Model(
            id=identity, study_id=study, dataset_id=dataset, trial_number=0, status="accepted",
            verdict="accepted", reasons=[], threshold=0.5, metrics={}, path="/p",
        )
    )  # fmt: skip


def add_proven_models(store: ArtifactStore, ledger: Ledger, n: int) -> list[Artifact]:
    """Make models that may be deployed, of the kind whose scaler nobody fits again."""
    add_batch(ledger)
    add_study(ledger)
    ledger.record(tables.Proof(id="proof-1", dataset_id="dataset-1", is_proven=True, evidence={}))
    models = []
    for number in range(n):
        identity = f"forecaster-{number:012x}"
        with store.create(identity, parents=["study-1", "dataset-1"], parameters={}):
            add_model(ledger, identity)
        models.append(store.get(identity))
    return models


def add_gate(ledger: Ledger, model: str, verdict="promote", *, champion=None, strategy="s", day=1):
    ledger.record(
        tables.Gate(
            id=f"gate-{model}-{champion}-{day}", created_at=datetime(2026, 1, day, tzinfo=UTC),
            strategy=strategy, model_id=model, champion_id=champion, verdict=verdict,
            reasons=[] if verdict == "promote" else ["too little evidence"], report={},
        )
    )  # fmt: skip
