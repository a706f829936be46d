"""From a recording of quotes to batches of completed mock orders."""
