"""Training a network over several processes: what to divide, how, and the loop that does it."""
