"""Pages over the ledger: reads, runs nothing."""
