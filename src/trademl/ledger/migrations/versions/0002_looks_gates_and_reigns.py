"""Looks at test spans, verdicts of the gate, and the champions of each strategy."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.create_table(
        "test_looks",
        sa.Column("study_id", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("instrument", sa.String(length=80), nullable=False),
        sa.Column("recording_id", sa.String(length=80), nullable=False),
        sa.Column("from_ns", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("to_ns", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("n_trials", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("n_models", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("cuts", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["tuning_studies.id"], name=op.f("fk_test_looks_study_id_tuning_studies")
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_test_looks")),
    )
    op.create_index(op.f("ix_test_looks_instrument"), "test_looks", ["instrument"], unique=False)
    op.create_index(
        op.f("ix_test_looks_recording_id"), "test_looks", ["recording_id"], unique=False
    )
    op.create_table(
        "gates",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("strategy", sa.String(length=80), nullable=False),
        sa.Column("model_id", sa.String(length=80), nullable=False),
        sa.Column("champion_id", sa.String(length=80), nullable=True),
        sa.Column("verdict", sa.String(length=80), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["champion_id"], ["models.id"], name=op.f("fk_gates_champion_id_models")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_gates_model_id_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gates")),
    )
    op.create_table(
        "reigns",
        sa.Column("strategy", sa.String(length=80), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("model_id", sa.String(length=80), nullable=False),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("to_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("how", sa.String(length=80), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("gate_id", sa.String(length=80), nullable=True),
        sa.Column("restores", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.ForeignKeyConstraint(["gate_id"], ["gates.id"], name=op.f("fk_reigns_gate_id_gates")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_reigns_model_id_models")
        ),
        sa.PrimaryKeyConstraint("strategy", "number", name=op.f("pk_reigns")),
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_table("reigns")
    op.drop_table("gates")
    op.drop_index(op.f("ix_test_looks_recording_id"), table_name="test_looks")
    op.drop_index(op.f("ix_test_looks_instrument"), table_name="test_looks")
    op.drop_table("test_looks")
