"""Live trading: orders, fills, leases and hedges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables."""
    _add_orders()
    op.create_table(
        "broker_cursors",
        sa.Column("broker", sa.String(80), nullable=False),
        sa.Column("position", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("broker", name=op.f("pk_broker_cursors")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("home", sa.String(80), nullable=False),
        sa.Column("region", sa.String(80), nullable=False),
        sa.Column("holder", sa.String(80), nullable=False),
        sa.Column("token", _INTEGER, nullable=False),
        sa.Column("home_token", _INTEGER, nullable=False),
        sa.Column("expires_at_ms", _INTEGER, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "hedges",
        sa.Column("lease", sa.String(80), nullable=False),
        sa.Column("home_token", _INTEGER, nullable=False, autoincrement=False),
        sa.Column("strategy", sa.String(80), nullable=False),
        sa.Column("region", sa.String(80), nullable=False),
        sa.Column("fired_at_ns", _INTEGER, nullable=False),
        sa.Column("recovered_at_ns", _INTEGER, nullable=True),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("lease", "home_token", name=op.f("pk_hedges")),
    )


def _add_orders() -> None:
    op.create_table(
        "broker_orders",
        sa.Column("key", sa.String(80), nullable=False),
        sa.Column("strategy", sa.String(80), nullable=False),
        sa.Column("instrument", sa.String(80), nullable=False),
        sa.Column("side", sa.String(80), nullable=False),
        sa.Column("kind", sa.String(80), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("limit_price", sa.Double(), nullable=True),
        sa.Column("status", sa.String(80), nullable=False),
        sa.Column("created_at_ns", _INTEGER, nullable=False),
        sa.Column("sent_at_ns", _INTEGER, nullable=True),
        sa.Column("lease", sa.String(80), nullable=True),
        sa.Column("token", _INTEGER, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_broker_orders")),
    )
    op.create_index(op.f("ix_broker_orders_strategy"), "broker_orders", ["strategy"])
    op.create_index(op.f("ix_broker_orders_status"), "broker_orders", ["status"])
    op.create_table(
        "broker_fills",
        sa.Column("order_key", sa.String(80), nullable=False),
        sa.Column("number", _INTEGER, nullable=False, autoincrement=False),
        sa.Column("ts_event_ns", _INTEGER, nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("price", sa.Double(), nullable=False),
        sa.Column("fees", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_key"],
            ["broker_orders.key"],
            name=op.f("fk_broker_fills_order_key_broker_orders"),
        ),
        sa.PrimaryKeyConstraint("order_key", "number", name=op.f("pk_broker_fills")),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("hedges", "leases", "broker_cursors", "broker_fills", "broker_orders"):
        op.drop_table(table)
