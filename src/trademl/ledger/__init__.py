"""Every run, model, deployment, prediction and trade as SQL tables that link to each other."""

from trademl.ledger import live_tables, serving_tables  # add their tables to the schema
from trademl.ledger.database import Ledger
from trademl.ledger.databases import Database

__all__ = ["Database", "Ledger", "live_tables", "serving_tables"]
