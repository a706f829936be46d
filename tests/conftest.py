"""Fixtures that every test may use, and Ctrl-C as a terminal gives it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

# A shell starts what runs in the background with Ctrl-C ignored, and every process of a test
# inherits that: tests that interrupt one would fail for no defect of it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes text to a CSV file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "quotes.csv"
        path.write_text(text)
        return path

    return write
