"""Allocations: the weights of each decision and the model behind it; the instrument of a trade."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0013"
branch_labels = None
depends_on = None

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table and the column."""
    op.create_table(
        "allocation_weights",
        sa.Column("backtest_id", sa.String(80), nullable=False),
        sa.Column("number", _INTEGER, nullable=False),
        sa.Column("instrument", sa.String(80), nullable=False),
        sa.Column("decided_at_ns", _INTEGER, nullable=False),
        sa.Column("model_id", sa.String(80), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("equal_weight", sa.Double(), nullable=False),
        sa.Column("forecast", sa.Double(), nullable=True),
        sa.Column("realised", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["backtest_id"], ["backtests.id"],
            name=op.f("fk_allocation_weights_backtest_id_backtests"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_allocation_weights_model_id_models")
        ),
        sa.PrimaryKeyConstraint(
            "backtest_id", "number", "instrument", name=op.f("pk_allocation_weights")
        ),
    )  # fmt: skip
    with op.batch_alter_table("trades") as table:
        table.add_column(sa.Column("instrument", sa.String(80), nullable=True))


def downgrade() -> None:
    """Take it back; weights are deleted."""
    with op.batch_alter_table("trades") as table:
        table.drop_column("instrument")
    op.drop_table("allocation_weights")
