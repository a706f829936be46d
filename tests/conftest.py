"""Fixtures that every test may use, Ctrl-C as a terminal gives it, and examples without a clock."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples

# How long an example takes says how busy the machine is, and not whether the code is right.
examples.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("untimed")

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
