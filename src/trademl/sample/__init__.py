"""The bundled recording, and the strategy and tuning job of the demo."""
