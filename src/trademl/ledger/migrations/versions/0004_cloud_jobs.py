"""Jobs on SageMaker: where they run, how they ended, what they may cost and did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of jobs."""
    integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "cloud_jobs",
        sa.Column("region", sa.String(80), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(80), nullable=False),
        sa.Column("study_id", sa.String(80), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("instance_type", sa.String(80), nullable=False),
        sa.Column("instance_count", integer, nullable=False),
        sa.Column("status", sa.String(80), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("worst_case_usd", sa.Double(), nullable=True),
        sa.Column("usd_per_hour", sa.Double(), nullable=True),
        sa.Column("billable_s", integer, nullable=True),
        sa.PrimaryKeyConstraint("region", "name", name=op.f("pk_cloud_jobs")),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("cloud_jobs")
