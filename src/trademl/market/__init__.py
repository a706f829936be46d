"""The words of the trade and the one fill model: pure, compiled, no I/O."""
