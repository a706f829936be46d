"""A silence in a recording ends a backtest with the quote before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from market_cases import random_walk
from trademl.backtest.gaps import before_gap
from trademl.backtest.settings import BacktestConfig


@pytest.fixture
def silent():
    """Ten quotes, with a minute of silence after the sixth."""
    quotes = random_walk(10)
    ts_ns = np.arange(10) * 1_000_000_000
    ts_ns[6:] += 60_000_000_000
    return replace(quotes, ts_event=ts_ns)


def test_the_last_quote_is_the_one_before_the_silence(silent):
    quotes, stopped = before_gap(silent, BacktestConfig(max_gap_s=60.0))
    assert quotes.ts_event[-1] == 5_000_000_000
    assert "no quote came for 61 s" in stopped


def test_a_silence_as_long_as_allowed_is_none(silent):
    assert before_gap(silent, BacktestConfig(max_gap_s=61.0)) == (silent, None)
