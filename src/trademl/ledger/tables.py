"""The tables of the ledger: tick batch -> dataset -> study -> model -> deployment -> trades.

Ids of artifacts are the primary keys, so that writing the same result twice changes nothing.
Times are UTC nanoseconds in 64-bit integers (``_ns``), or UTC timestamps for when a row was made.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
Json = dict[str, Any]


def _now() -> datetime:
    return datetime.now(UTC)


@compiles(DateTime, "mysql")
@compiles(DateTime, "mariadb")
def _to_the_microsecond(*_: Any, **__: Any) -> str:
    """Keep what MySQL would cut off, as the other servers do: rows are told apart by their time."""
    return "DATETIME(6)"


class Base(DeclarativeBase):
    """Root of the ledger's tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        str: String(80),
        int: BigInteger().with_variant(Integer, "sqlite"),
        float: Double,
        datetime: DateTime(timezone=True),
        Json: JSON,
        list[str]: JSON,
        list[float]: JSON,
    }


class Batch(Base):
    """An export batch: mock orders that completed, and the prices around them."""

    __tablename__ = "batches"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    instrument: Mapped[str]
    recording_id: Mapped[str]
    number: Mapped[int]
    n_orders: Mapped[int]
    first_entry_ns: Mapped[int]
    last_exit_ns: Mapped[int]
    label_rate: Mapped[float]
    path: Mapped[str] = mapped_column(Text)


class Dataset(Base):
    """A labelled dataset made from one batch."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"))
    n_train: Mapped[int]
    n_validation: Mapped[int]
    n_test: Mapped[int]
    feature_dim: Mapped[int]
    facts: Mapped[Json]
    path: Mapped[str] = mapped_column(Text)


class Proof(Base):
    """Evidence that a dataset is free of look-ahead, or that it is not."""

    __tablename__ = "proofs"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    is_proven: Mapped[bool]
    evidence: Mapped[Json]


class Study(Base):
    """A hyperparameter search, or a single training job, over one dataset."""

    __tablename__ = "tuning_studies"  # Optuna keeps tables named studies and trials beside

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    name: Mapped[str | None]  # of the tuning job, where it has one
    objective: Mapped[str]
    direction: Mapped[str]
    seed: Mapped[int]
    path: Mapped[str] = mapped_column(Text)


class Trial(Base):
    """One training job of a study."""

    __tablename__ = "tuning_trials"

    study_id: Mapped[str] = mapped_column(ForeignKey("tuning_studies.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str | None]  # Completed | Stopped | Failed; None before it was recorded
    objective: Mapped[float | None]
    hyperparameters: Mapped[Json]
    metrics: Mapped[Json]
    refused_because: Mapped[list[str] | None]


class CloudJob(Base):
    """A training, tuning or transform job on SageMaker, from the moment it was started."""

    __tablename__ = "cloud_jobs"

    region: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    kind: Mapped[str]  # training | tuning | transform
    study_id: Mapped[str | None]  # no foreign key: the study comes when the job has ended
    model_id: Mapped[str | None]  # of a transform job
    image: Mapped[str] = mapped_column(Text)
    instance_type: Mapped[str]
    instance_count: Mapped[int]
    status: Mapped[str]
    failure: Mapped[str | None] = mapped_column(Text)
    worst_case_usd: Mapped[float | None]
    usd_per_hour: Mapped[float | None]
    billable_s: Mapped[int | None]  # of all its training jobs, one machine each


class Model(Base):
    """A trained model that selection chose, accepted or not."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    study_id: Mapped[str] = mapped_column(ForeignKey("tuning_studies.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    trial_number: Mapped[int]
    status: Mapped[str]  # accepted | refused
    verdict: Mapped[str] = mapped_column(Text)
    reasons: Mapped[list[str]]
    threshold: Mapped[float]
    metrics: Mapped[Json]
    path: Mapped[str] = mapped_column(Text)


class Look(Base):
    """A study whose models were measured on the test rows of its dataset: a look at that span.

    ``n_models`` is the sum of ``num_models`` over its trials, ``cuts`` the scores at which flagged
    orders were counted.
    """

    __tablename__ = "test_looks"

    study_id: Mapped[str] = mapped_column(ForeignKey("tuning_studies.id"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    instrument: Mapped[str] = mapped_column(index=True)
    recording_id: Mapped[str] = mapped_column(index=True)
    from_ns: Mapped[int]
    to_ns: Mapped[int]
    n_trials: Mapped[int]
    n_models: Mapped[int]
    cuts: Mapped[list[float]]


class Gate(Base):
    """What the gate said of a model: promote, hold or reject, with every number and reason."""

    __tablename__ = "gates"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    strategy: Mapped[str]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    champion_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    verdict: Mapped[str]  # promote | hold | reject
    reasons: Mapped[list[str]]
    report: Mapped[Json]


class Reign(Base):
    """A span of time in which a model was the champion of a strategy, and why it became it.

    The primary key lets one of two promotions at once through, and no more.
    """

    __tablename__ = "reigns"

    strategy: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    from_at: Mapped[datetime]
    to_at: Mapped[datetime | None]
    how: Mapped[str]  # gate | hand | forced | rollback
    why: Mapped[str] = mapped_column(Text)
    gate_id: Mapped[str | None] = mapped_column(ForeignKey("gates.id"))
    restores: Mapped[int | None]  # number of the reign that a rollback brought back


class Deployment(Base):
    """A model put behind an endpoint, and when: the history of what was live."""

    __tablename__ = "deployments"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    endpoint: Mapped[str]
    mode: Mapped[str]  # live | shadow
    retired_at: Mapped[datetime | None]


class Prediction(Base):
    """One answer of a served model about one row of a dataset."""

    __tablename__ = "predictions"

    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    order_id: Mapped[int] = mapped_column(primary_key=True)
    ts_event_ns: Mapped[int]
    score: Mapped[float]
    predicted_label: Mapped[int]


class Evaluation(Base):
    """What a model was worth on a split, with the base rate beside every figure."""

    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    split: Mapped[str]
    metrics: Mapped[Json]


class Backtest(Base):
    """A backtest over a span: of a model's signals, or of a strategy file, which has no model."""

    __tablename__ = "backtests"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    deployment_id: Mapped[str | None] = mapped_column(ForeignKey("deployments.id"))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    engines: Mapped[list[str]]
    metrics: Mapped[Json]
    path: Mapped[str] = mapped_column(Text)


class Trade(Base):
    """One round trip of a backtest.

    ``pnl`` is ``gross_points`` times the multiplier of the costs, less ``fees``, plus ``carry``.
    Columns that may be None are so in backtests that were made before they were there.
    """

    __tablename__ = "trades"

    backtest_id: Mapped[str] = mapped_column(ForeignKey("backtests.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int]
    side: Mapped[str]
    opened_at_ns: Mapped[int]
    entry_price: Mapped[float]
    closed_at_ns: Mapped[int]
    exit_price: Mapped[float]
    exit_reason: Mapped[str]
    fees: Mapped[float]
    pnl: Mapped[float]
    score: Mapped[float | None]  # None where a strategy gave none
    decided_at_ns: Mapped[int | None]
    size: Mapped[float | None]
    gross_points: Mapped[float | None]  # price moved in favour, times the units
    carry: Mapped[float | None]
    tier: Mapped[str | None]  # of the answer that it was decided on, where it was served
    latency_ms: Mapped[float | None]  # of that answer
    instrument: Mapped[str | None]  # of an allocation, which trades several


class Equity(Base):
    """A point of a backtest's equity curve, open positions marked at the exit touch."""

    __tablename__ = "equity"

    backtest_id: Mapped[str] = mapped_column(ForeignKey("backtests.id"), primary_key=True)
    ts_event_ns: Mapped[int] = mapped_column(primary_key=True)
    equity: Mapped[float]


class AllocationWeight(Base):
    """What one decision of an allocation gave one asset, and what its model had forecast.

    ``forecast`` and ``realised`` are log returns over the period after the decision; None where
    there is none.
    """

    __tablename__ = "allocation_weights"

    backtest_id: Mapped[str] = mapped_column(ForeignKey("backtests.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    instrument: Mapped[str] = mapped_column(primary_key=True)
    decided_at_ns: Mapped[int]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    weight: Mapped[float]
    equal_weight: Mapped[float]
    forecast: Mapped[float | None]
    realised: Mapped[float | None]


class WalkForward(Base):
    """A strategy retrained again and again over one batch, each model traded on what came next."""

    __tablename__ = "walk_forwards"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=_now)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"))
    from_ns: Mapped[int]
    to_ns: Mapped[int]
    settings: Mapped[Json]
    metrics: Mapped[Json]
    path: Mapped[str] = mapped_column(Text)


class WalkWindow(Base):
    """One window of a walk-forward: what was known, which model came of it, what it earned."""

    __tablename__ = "walk_windows"

    walk_forward_id: Mapped[str] = mapped_column(ForeignKey("walk_forwards.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    verdict: Mapped[str]  # promote | hold | reject | untrained
    reasons: Mapped[list[str]]
    n_learned: Mapped[int]
    traded_from_ns: Mapped[int]
    traded_to_ns: Mapped[int]
    n_trades: Mapped[int]
    pnl: Mapped[float]
    ungated_pnl: Mapped[float]


class Run(Base):
    """One pass of the pipeline and the artifacts that it ended with."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    strategy: Mapped[str]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    status: Mapped[str]  # running | done | failed | interrupted
    artifacts: Mapped[Json]
