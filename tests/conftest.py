"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes text to a CSV file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "quotes.csv"
        path.write_text(text)
        return path

    return write
