"""Statistics that training and backtest share: pure numpy."""
