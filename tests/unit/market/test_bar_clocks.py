"""Bars from ticks, against pandas, a plain loop, and themselves in other blocks."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.errors import ConfigError, DataError
from trademl.market.bar_clocks import BarClock, TickBars, join_bars

S = 1_000_000_000
START = 1_700_000_040 * S


def ticks(n: int, seed: int = 0, mean_s: float = 3.0):
    rng = np.random.default_rng(seed)
    ts = START + np.cumsum(rng.exponential(mean_s * S, n)).astype(np.int64)
    price = 1000 + 0.25 * np.cumsum(rng.integers(-2, 3, n))
    return ts, price, rng.integers(0, 9, n).astype(float)


def slow(ts, price, size, sound, filled_by, limit, sessions):
    """Return bars of ticks, money or volume as dicts, tick by tick, by the words of the module."""
    bars, now = [], None
    for k in range(len(ts)):
        if now and ts[k] >= now["ends"]:
            bars.append(now | {"ts_close": now["ends"]})
            now = None
        session = next((s for s in sessions if s[0] <= ts[k] < s[1]), None)
        if not sound[k] or session is None:
            continue
        if now is None:
            now = {"ts_open": ts[k], "first": k, "prices": [], "volume": 0.0, "filled": 0.0}
            now["ends"] = session[1]
        now["prices"].append(price[k])
        now["last"] = k
        now["volume"] += size[k]
        now["filled"] += {"tick": 1.0, "volume": size[k], "dollar": price[k] * size[k]}[filled_by]
        if now["filled"] >= limit:
            bars.append(now | {"ts_close": ts[k]})
            now = None
    return bars


def assert_same(one: TickBars, other: TickBars) -> None:
    for field in fields(TickBars):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_bars_of_time_are_those_of_pandas():
    ts, price, size = ticks(4000)
    found = BarClock("time", 60).add(ts, price, size)
    by_minute = pd.DataFrame({"price": price, "size": size}, pd.to_datetime(ts)).resample("60s")
    expected = by_minute["price"].ohlc().dropna().iloc[:-1]  # the last minute is not over
    assert found.ts_open.tolist() == expected.index.as_unit("ns").astype("int64").tolist()
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(found, name), expected[name])
    volume = by_minute["size"].sum().loc[expected.index]
    np.testing.assert_array_equal(found.volume, volume)
    assert (found.ts_close - found.ts_open == 60 * S).all()


@pytest.mark.parametrize(("by", "limit"), [("tick", 7), ("volume", 40.0), ("dollar", 50_000.0)])
def test_bars_of_other_clocks_are_those_of_a_plain_loop(by, limit):
    ts, price, size = ticks(3000, seed=2)
    sound = np.random.default_rng(3).random(len(ts)) > 0.1
    third = (ts[-1] - ts[0]) // 3
    sessions = [(ts[0] + i * third, ts[0] + (i + 1) * third - 60 * S) for i in range(3)]
    opens, closes = np.array(sessions).T
    found = BarClock(by, limit, opens, closes).add(ts, price, size, sound)
    expected = slow(ts, price, size, sound, by, limit, sessions)
    assert len(found) == len(expected) > 100
    for m, bar in enumerate(expected):
        p = bar["prices"]
        assert (found.open[m], found.high[m], found.low[m]) == (p[0], max(p), min(p))
        assert (found.close[m], found.n_ticks[m]) == (p[-1], len(p))
        for name in ("ts_open", "ts_close", "first", "last", "volume"):
            assert getattr(found, name)[m] == bar[name], name


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    by=st.sampled_from(["time", "tick", "volume", "dollar"]),
    seed=st.integers(0, 99),
)
def test_blocks_change_nothing(steps, cuts, by, seed):
    rng = np.random.default_rng(seed)
    n = len(steps)
    ts = START + np.cumsum(steps) * S
    price, size = rng.integers(1, 50, n) / 4, rng.integers(0, 5, n) / 4
    sound = rng.random(n) > 0.2
    opens = START + np.array([0, 200, 500]) * S
    closes = START + np.array([150, 430, 900]) * S
    limit = {"time": 17, "tick": 3, "volume": 1.7, "dollar": 9.1}[by]
    whole = BarClock(by, limit, opens, closes).add(ts, price, size, sound)
    clock, edges = BarClock(by, limit, opens, closes), [0, *sorted(min(c, n) for c in cuts), n]
    parts = [clock.add(ts[a:b], price[a:b], size[a:b], sound[a:b]) for a, b in pairwise(edges)]
    assert_same(join_bars(parts), whole)


def test_no_bar_spans_a_sessions_end():
    ts = START + np.array([0, 10, 20, 100, 110]) * S
    opens, closes = START + np.array([[0, 90], [30, 200]]) * S
    for by, size in (("time", 60), ("tick", 4)):
        bars = BarClock(by, size, opens, closes).add(ts, np.ones(5), np.ones(5))
        assert bars.n_ticks.tolist() == [3]
        assert bars.ts_close.tolist() == [START + 30 * S]


def test_a_bar_begins_with_its_session_and_not_before():
    opens, closes = np.array([START + 20 * S]), np.array([START + 500 * S])
    bars = BarClock("time", 60, opens, closes).add(
        START + np.array([5, 25, 61]) * S, np.array([1.0, 2.0, 3.0])
    )
    assert (bars.ts_open.tolist(), bars.ts_close.tolist()) == ([START + 20 * S], [START + 60 * S])
    assert bars.low.tolist() == [2.0]


def test_a_bar_is_not_known_before_its_end():
    clock = BarClock("time", 60)
    assert len(clock.add(START + np.array([0, 59]) * S, np.ones(2))) == 0
    assert len(clock.until(START + 60 * S - 1)) == 0
    assert clock.until(START + 60 * S).n_ticks.tolist() == [2]
    assert len(clock.until(START + 60 * S)) == 0


def test_later_ticks_change_no_finished_bar():
    ts, price, size = ticks(500, seed=4)
    price_later = price.copy()
    price_later[300:] += 50
    one, other = (BarClock("volume", 25).add(ts, p, size) for p in (price, price_later))
    known = one.ts_close < ts[300]
    assert known.sum() > 20
    assert_same(
        *(TickBars(*(getattr(b, f.name)[known] for f in fields(TickBars))) for b in (one, other))
    )


def test_doubtful_ticks_pass_the_time_and_are_in_no_bar():
    ts = START + np.array([0, 30, 60]) * S
    bars = BarClock("time", 60).add(
        ts, np.array([5.0, np.nan, np.nan]), None, np.array([1, 0, 0], bool)
    )
    assert (bars.n_ticks.tolist(), bars.last.tolist()) == ([1], [0])


@pytest.mark.parametrize("by", ["volume", "dollar"])
def test_ticks_without_sizes_make_no_bars_of_them(by):
    with pytest.raises(DataError, match=f"have no sizes, so there are no bars by {by}"):
        BarClock(by, 10).add(np.array([START]), np.ones(1))


def test_without_sizes_bars_of_time_have_no_volume():
    bars = BarClock("tick", 1).add(np.array([START]), np.ones(1))
    assert np.isnan(bars.volume).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("minute", 60), ConfigError, "by 'minute', expected one of time, tick, volume, dollar"),
        (("time", 0), ConfigError, "size of a bar is 0"),
        (("tick", 2.5), ConfigError, "2.5 ticks, expected a whole number"),
        (("time", 1e-10), ConfigError, "from a nanosecond"),
        (("tick", 5, np.array([0, 5]), np.array([9, 20])), DataError, "session 1 is from 5 to 20"),
        (("tick", 5, np.array([0]), np.array([0])), DataError, "session 0 is from 0 to 0"),
    ],
)
def test_a_clock_that_cannot_be_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        BarClock(*arguments)


def test_bad_ticks_are_named_by_their_number():
    clock = BarClock("tick", 2)
    clock.add(START + np.array([0, 5]) * S, np.ones(2), np.ones(2))
    with pytest.raises(DataError, match="tick 2 is at .*, before the one before it"):
        clock.add(np.array([START]), np.ones(1), np.ones(1))
    with pytest.raises(DataError, match="tick 3 has price -1"):
        clock.add(START + np.array([6, 7]) * S, np.array([1.0, -1.0]), np.ones(2))
    with pytest.raises(DataError, match="tick 2 has volume nan"):
        clock.add(START + np.array([6]) * S, np.ones(1), np.array([np.nan]))
