"""``python -m trademl``."""

from trademl.cli.main import main

main()
