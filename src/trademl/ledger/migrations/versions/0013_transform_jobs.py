"""Transform jobs among the jobs on SageMaker: they are of a model, not of a study."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let a job be of a model instead of a study."""
    with op.batch_alter_table("cloud_jobs") as table:
        table.alter_column("study_id", existing_type=sa.String(80), nullable=True)
        table.add_column(sa.Column("model_id", sa.String(80), nullable=True))


def downgrade() -> None:
    """Take it back; jobs of models are deleted."""
    jobs = sa.table("cloud_jobs", sa.column("study_id"))
    op.get_bind().execute(sa.delete(jobs).where(jobs.c.study_id.is_(None)))
    with op.batch_alter_table("cloud_jobs") as table:
        table.drop_column("model_id")
        table.alter_column("study_id", existing_type=sa.String(80), nullable=False)
