"""Walk-forwards: their windows, the model of each and its verdict."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the two tables."""
    integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "walk_forwards",
        sa.Column("id", sa.String(80), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("batch_id", sa.String(80), nullable=False),
        sa.Column("from_ns", integer, nullable=False),
        sa.Column("to_ns", integer, nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_walk_forwards_batch_id_batches")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_walk_forwards")),
    )
    op.create_table(
        "walk_windows",
        sa.Column("walk_forward_id", sa.String(80), nullable=False),
        sa.Column("number", integer, nullable=False),
        sa.Column("model_id", sa.String(80), nullable=True),
        sa.Column("verdict", sa.String(80), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("n_learned", integer, nullable=False),
        sa.Column("traded_from_ns", integer, nullable=False),
        sa.Column("traded_to_ns", integer, nullable=False),
        sa.Column("n_trades", integer, nullable=False),
        sa.Column("pnl", sa.Double(), nullable=False),
        sa.Column("ungated_pnl", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["walk_forward_id"],
            ["walk_forwards.id"],
            name=op.f("fk_walk_windows_walk_forward_id_walk_forwards"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_walk_windows_model_id_models")
        ),
        sa.PrimaryKeyConstraint("walk_forward_id", "number", name=op.f("pk_walk_windows")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("walk_windows")
    op.drop_table("walk_forwards")
