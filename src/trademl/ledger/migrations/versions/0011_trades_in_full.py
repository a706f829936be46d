"""Trades in full: decision, size, carry, tier; backtests of strategies that have no model."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ADDED: dict[str, Any] = {
    "decided_at_ns": _INTEGER,
    "size": sa.Double(),
    "gross_points": sa.Double(),
    "carry": sa.Double(),
    "tier": sa.String(80),
    "latency_ms": sa.Double(),
}


def upgrade() -> None:
    """Add the columns, and let a backtest be without model and dataset, a trade without score."""
    with op.batch_alter_table("backtests") as table:
        table.alter_column("model_id", existing_type=sa.String(80), nullable=True)
        table.alter_column("dataset_id", existing_type=sa.String(80), nullable=True)
    with op.batch_alter_table("trades") as table:
        table.alter_column("score", existing_type=sa.Double(), nullable=True)
        for name, kind in _ADDED.items():
            table.add_column(sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    """Take it back; what the older schema cannot hold is deleted."""
    bind = op.get_bind()
    backtests, children = (
        sa.table("backtests", sa.column("id"), sa.column("model_id")),
        (
            sa.table("trades", sa.column("backtest_id"), sa.column("score")),
            sa.table("equity", sa.column("backtest_id")),
        ),
    )
    without_model = [
        row[0]
        for row in bind.execute(sa.select(backtests.c.id).where(backtests.c.model_id.is_(None)))
    ]
    for child in children:
        bind.execute(sa.delete(child).where(child.c.backtest_id.in_(without_model)))
    bind.execute(sa.delete(backtests).where(backtests.c.id.in_(without_model)))
    trades = children[0]
    bind.execute(sa.delete(trades).where(trades.c.score.is_(None)))
    with op.batch_alter_table("trades") as table:
        for name in reversed(_ADDED):
            table.drop_column(name)
        table.alter_column("score", existing_type=sa.Double(), nullable=False)
    with op.batch_alter_table("backtests") as table:
        table.alter_column("dataset_id", existing_type=sa.String(80), nullable=False)
        table.alter_column("model_id", existing_type=sa.String(80), nullable=False)
