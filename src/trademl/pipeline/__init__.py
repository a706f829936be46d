"""The life cycle as steps that run once, skip what is done and resume."""
