"""Every run, model, deployment, prediction and trade as SQL tables that link to each other."""

from trademl.ledger.database import Ledger

__all__ = ["Ledger"]
