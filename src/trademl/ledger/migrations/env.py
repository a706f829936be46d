"""Alembic's entry: runs the migrations on the connection that `migrate` hands over."""

from alembic import context

from trademl.ledger.schema import VERSION_TABLE
from trademl.ledger.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
