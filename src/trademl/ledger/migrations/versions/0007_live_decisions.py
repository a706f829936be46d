"""Live runs and their decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "live_runs",
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("strategy", sa.String(80), nullable=False),
        sa.Column("model_id", sa.String(80), nullable=False),
        sa.Column("feed", sa.Text(), nullable=False),
        sa.Column("mode", sa.String(80), nullable=False),
        sa.Column("status", sa.String(80), nullable=False),
        sa.Column("n_quotes", _INTEGER, nullable=False),
        sa.Column("last_ns", _INTEGER, nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_live_runs")),
    )
    op.create_index(op.f("ix_live_runs_strategy"), "live_runs", ["strategy"])
    op.create_table(
        "live_decisions",
        sa.Column("run_id", sa.String(80), nullable=False),
        sa.Column("quote_index", _INTEGER, nullable=False, autoincrement=False),
        sa.Column("as_of_ns", _INTEGER, nullable=False),
        sa.Column("outcome", sa.String(80), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("tier", sa.String(80), nullable=False),
        sa.Column("model_id", sa.String(80), nullable=False),
        sa.Column("age_ms", sa.Double(), nullable=False),
        sa.Column("latency_us", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("order_key", sa.String(80), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["live_runs.id"], name=op.f("fk_live_decisions_run_id_live_runs")
        ),
        sa.PrimaryKeyConstraint("run_id", "quote_index", name=op.f("pk_live_decisions")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("live_decisions")
    op.drop_table("live_runs")
