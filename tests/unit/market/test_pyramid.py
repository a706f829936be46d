"""The first price outside a band is the one that a plain look through all of them finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.market.pyramid import build_pyramid, first_outside

prices = st.lists(
    st.one_of(st.integers(-40, 40).map(float), st.just(np.nan)), min_size=0, max_size=700
)


def plain_look(price, start, lower, upper):
    outside = np.flatnonzero((price[start:] <= lower) | (price[start:] >= upper))
    return start + int(outside[0]) if outside.size else len(price)


@settings(max_examples=300, deadline=None)
@given(price=prices, lower=st.integers(-41, 0), upper=st.integers(1, 41), data=st.data())
def test_equal_to_a_plain_look(price, lower, upper, data):
    price = np.array(price)
    start = data.draw(st.integers(0, len(price)))

    found = first_outside(build_pyramid(price, price), start, lower, upper)

    assert found == plain_look(price, start, lower, upper)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1_000), n=st.integers(1, 700), lower=st.integers(-30, 0))
def test_bars_leave_the_band_by_their_lows_and_highs(seed, n, lower):
    rng = np.random.default_rng(seed)
    low = rng.integers(-30, 1, n).astype(float)
    high = low + rng.integers(0, 30, n)
    start = int(rng.integers(0, n))

    found = first_outside(build_pyramid(low, high), start, lower, 20.0)

    outside = np.flatnonzero((low[start:] <= lower) | (high[start:] >= 20))
    assert found == (start + outside[0] if outside.size else n)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 63, 64, 65, 511, 512, 513, 4096, 5000])
def test_one_price_outside_is_found_from_everywhere(n):
    for at in {0, 1, n // 2, n - 2, n - 1} & set(range(n)):
        price = np.zeros(n)
        price[at] = -1
        pyramid = build_pyramid(price, price)
        found = [first_outside(pyramid, start, -1.0, 1.0) for start in range(n + 1)]
        assert found == [at if start <= at else n for start in range(n + 1)]


def test_price_on_an_edge_is_outside():
    pyramid = build_pyramid(*2 * [np.array([0.0, 1.0, -2.0])])

    assert first_outside(pyramid, 0, -5.0, 1.0) == 1
    assert first_outside(pyramid, 0, -2.0, 5.0) == 2


def test_nan_is_outside_no_band():
    pyramid = build_pyramid(*2 * [np.full(100, np.nan)])

    assert first_outside(pyramid, 0, 0.0, 0.0) == 100
