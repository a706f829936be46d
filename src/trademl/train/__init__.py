"""Models, tuning and selection."""
