"""Trading live: orders to a broker, positions, who may trade, and the hedge of an outage."""
