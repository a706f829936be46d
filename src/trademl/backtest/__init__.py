"""Engines that trade a model's signals on the one fill model, and what they report."""
