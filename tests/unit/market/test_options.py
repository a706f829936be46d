"""Black-Scholes: published values, parity, and deltas by finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trademl.errors import DataError
from trademl.market.options import Option

# Hull, Options, Futures, and Other Derivatives: the example of the chapter on the model
HULL = Option("call", spot=42.0, strike=40.0, years=0.5, volatility=0.2, rate=0.1)
OPTIONS = st.builds(
    Option,
    right=st.sampled_from(["call", "put"]),
    spot=st.floats(5, 200),
    strike=st.floats(5, 200),
    years=st.floats(0.02, 3),
    volatility=st.floats(0.05, 1.5),
    rate=st.floats(-0.02, 0.1),
    dividend_yield=st.floats(0, 0.1),
)


def test_the_published_prices():
    assert HULL.price == pytest.approx(4.76, abs=0.005)
    assert replace(HULL, right="put").price == pytest.approx(0.81, abs=0.005)


def test_a_published_delta():
    # Hull, the chapter on the Greeks: spot 49, strike 50, 5 %, 20 %, 20 weeks: 0.522
    option = Option("call", spot=49.0, strike=50.0, years=0.3846, volatility=0.2, rate=0.05)
    assert option.delta == pytest.approx(0.522, abs=0.0005)


@given(OPTIONS)
def test_a_call_less_a_put_is_a_forward(option):
    call, put = replace(option, right="call"), replace(option, right="put")
    forward = option.spot * math.exp(-option.dividend_yield * option.years)
    forward -= option.strike * math.exp(-option.rate * option.years)
    assert call.price - put.price == pytest.approx(forward, abs=1e-9)


@given(OPTIONS)
def test_delta_is_the_slope_of_the_price(option):
    step = option.spot * 1e-5
    up, down = (replace(option, spot=option.spot + s).price for s in (step, -step))
    assume(option.price > 1e-6)
    assert option.delta == pytest.approx((up - down) / (2 * step), abs=1e-4)


@given(OPTIONS)
def test_delta_and_price_stay_within_their_bounds(option):
    sign = 1 if option.right == "call" else -1
    assert 0 <= sign * option.delta <= 1
    assert 0 <= option.price <= max(option.spot, option.strike * math.exp(0.02 * 3))


@pytest.mark.parametrize(
    "change",
    [{"spot": 0.0}, {"strike": -1.0}, {"years": 0.0}, {"volatility": math.nan}, {"rate": math.inf},
     {"right": "straddle"}],
)  # fmt: skip
def test_nonsense_is_refused(change):
    with pytest.raises(DataError):
        replace(HULL, **change)
