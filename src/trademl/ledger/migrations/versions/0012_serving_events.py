"""What model servers did on their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "serving_events",
        sa.Column("server", sa.String(80), nullable=False),
        sa.Column("number", _INTEGER, autoincrement=False, nullable=False),
        sa.Column("at_ns", _INTEGER, nullable=False),
        sa.Column("strategy", sa.String(300), nullable=False),
        sa.Column("kind", sa.String(80), nullable=False),
        sa.Column("old", sa.String(300), nullable=False),
        sa.Column("new", sa.String(300), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("server", "number", name="pk_serving_events"),
    )
    op.create_index("ix_serving_events_strategy", "serving_events", ["strategy"])


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_serving_events_strategy", "serving_events")
    op.drop_table("serving_events")
