"""Signals: which are flagged, and which cannot be traded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from backtest_cases import bids, signal, signals_of

from trademl.backtest.signals import check_signals
from trademl.errors import DataError


def test_a_score_at_the_threshold_is_flagged():
    signals = signals_of(*(signal(0, score=score) for score in (0.25, 0.5, 0.75, np.nan)))

    assert signals.flagged(0.5).order_id.tolist() == [11, 12]


def test_columns_of_different_length_are_refused():
    signals = replace(signals_of(signal(0)), order_id=np.arange(2))

    with pytest.raises(DataError, match="1 orders, 2 order ids and 1 scores"):
        check_signals(bids(100), signals)


def test_barrier_that_is_not_positive_is_refused():
    with pytest.raises(DataError, match=r"order 0 has stop_loss 0\.0"):
        check_signals(bids(100), signals_of(signal(0, stop_loss=0)))
