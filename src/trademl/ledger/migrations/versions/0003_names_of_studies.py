"""Names of studies, and how each trial ended."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply it."""
    op.add_column("tuning_studies", sa.Column("name", sa.String(length=80), nullable=True))
    op.add_column("tuning_trials", sa.Column("status", sa.String(length=80), nullable=True))


def downgrade() -> None:
    """Take it back."""
    op.drop_column("tuning_trials", "status")
    op.drop_column("tuning_studies", "name")
