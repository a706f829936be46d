"""Marks of bad stretches, each by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_cases import make_quotes, random_walk
from trademl.market.health import HealthConfig, flag_delays, health_marks, marks_between
from trademl.market.quotes import NOT_EXECUTABLE, QuoteFlag, flag_quotes

CONFIG = HealthConfig(gap_s=10, frozen_s=5)


def test_the_first_quote_after_a_longer_silence_is_marked():
    quotes = make_quotes([1, 2, 3, 4], seconds=[0, 10, 20.5, 21])
    assert health_marks(quotes, CONFIG).tolist() == [0, 0, QuoteFlag.GAP, 0]


def test_prices_that_stand_still_are_marked_once_it_is_longer_than_allowed():
    quotes = make_quotes([1, 2, 2, 2, 2, 3], seconds=[0, 1, 3, 6, 6.5, 7])
    assert health_marks(quotes, CONFIG).tolist() == [0, 0, 0, 0, QuoteFlag.FROZEN, 0]


def test_a_move_of_either_side_thaws():
    for side in ("bid", "ask"):
        quotes = make_quotes([2.0] * 8)
        getattr(quotes, side)[4:] += 0.125
        assert not health_marks(quotes, CONFIG).any()


def test_the_same_price_after_a_silence_is_a_gap_and_not_frozen():
    quotes = make_quotes([2, 2, 2], seconds=[0, 20, 24])
    assert health_marks(quotes, CONFIG).tolist() == [0, QuoteFlag.GAP, 0]


def test_marks_of_quotes_that_do_not_fill_are_kept():
    quotes = make_quotes([2, 3, 2], ask=[1, 4, np.nan])
    assert health_marks(quotes, CONFIG).tolist() == [QuoteFlag.CROSSED, 0, QuoteFlag.ONE_SIDED]


def test_gap_and_frozen_do_not_forbid_a_fill():
    quotes = make_quotes([2] * 9, seconds=[0, 1, 2, 3, 4, 5, 6, 7, 100])
    marks = health_marks(quotes, CONFIG)
    assert marks[6:].tolist() == [QuoteFlag.FROZEN, QuoteFlag.FROZEN, QuoteFlag.GAP]
    assert quotes.is_executable.all()
    assert not (marks & NOT_EXECUTABLE).any()


def test_a_state_other_than_tradeable_is_closed_and_none_says_nothing():
    state = np.array(["TRADEABLE", "CLOSED", "EDITS_ONLY", None], object)
    assert flag_quotes(np.ones(4), np.full(4, 2.0), state).tolist() == [0, 4, 4, 0]


def test_a_declared_delay_forbids_fills_and_can_be_judged_again():
    quotes = replace(
        make_quotes([3, 3, 3, 3], ask=[4, 4, 4, 2]),
        market_delay_s=np.array([0.0, 0.5, 1.0, np.nan]),
    )
    strict, lax = flag_delays(quotes, 0.5), flag_delays(flag_delays(quotes, 0.1), 5.0)
    assert strict.flags.tolist() == [0, 0, QuoteFlag.DELAYED, QuoteFlag.CROSSED]
    assert lax.flags.tolist() == [0, 0, 0, QuoteFlag.CROSSED]


def test_without_a_declared_delay_nothing_is_delayed():
    quotes = make_quotes([1, 2])
    assert flag_delays(quotes, 0.0) is quotes


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(1, 150))
def test_marks_read_nothing_after_their_quote(seed, cut):
    quotes = random_walk(200, seed=seed, per_s=0.3)
    marks = health_marks(quotes, CONFIG)
    np.testing.assert_array_equal(health_marks(quotes.slice(0, cut), CONFIG), marks[:cut])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_bits_between_two_quotes_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    marks = rng.choice([0, 0, 0, 1, 4, 16, 36], 60).astype(np.uint8)
    first, last = rng.integers(0, 60, 40), rng.integers(0, 60, 40)
    expected = [
        np.bitwise_or.reduce(marks[a : b + 1], initial=0) for a, b in zip(first, last, strict=True)
    ]
    assert marks_between(marks, first, last).tolist() == [int(x) for x in expected]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"gap_s": 0}, "gap_s is 0"), ({"max_delay_s": -1}, "max_delay_s is -1"),
     ({"policy": "hide"}, "expected flag or drop")],
)  # fmt: skip
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        HealthConfig(**settings)
