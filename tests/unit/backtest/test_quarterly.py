"""Walking forward by quarters: what a decision may know, and what it finds where there is something."""

from dataclasses import replace

import numpy as np
import pytest

from trademl.backtest.quarterly import (
    DAY_NS,
    day_rows,
    drifted,
    executable,
    hold,
    known_rows,
    quarter_decisions,
    walk_quarters,
)
from trademl.backtest.quarterly_settings import QuarterlyConfig
from trademl.errors import ConfigError, DataError
from trademl.market.bars import Bars
from trademl.market.costs import Costs
from trademl.market.snapshots import align

HOUR = 3_600_000_000_000
CONFIG = QuarterlyConfig(horizons=[5, 20], first_years=1.0, risk_aversion=2.0)


def market(years=3.0, drift=(0.0, 0.0, 0.0), seed=0):
    """Four bars a day for each asset; ``drift`` is the log return of a year."""
    rng = np.random.default_rng(seed)
    days = int(years * 365.25)
    ts = ((np.arange(days)[:, None] + 14_610) * 24 + np.array([14, 15, 16, 17])).ravel() * HOUR
    assets = {}
    for a, rate in enumerate(drift):
        r = rng.normal(rate / 365.25 / 4, 0.004, len(ts))
        close = 100 * np.exp(np.cumsum(r))
        open_ = np.concatenate([[100.0], close[:-1]])
        high, low = np.maximum(open_, close), np.minimum(open_, close)
        assets[f"a{a}"] = Bars(ts, ts + HOUR, open_, high, low, close, 1e-4 * close)
    return assets


def test_a_decision_is_the_last_snapshot_before_a_quarter():
    snapshots = align(market())
    at_I, _ = day_rows(snapshots, CONFIG)

    found = [snapshots.ts_T[at_I[i]] for i in quarter_decisions(snapshots, at_I, 1.0)]

    days = [str(np.datetime64(int(ts), "ns").astype("datetime64[D]")) for ts in found]
    # the recording begins on 2010-01-01
    assert days == ["2011-03-31", "2011-06-30", "2011-09-30", "2011-12-31", "2012-03-31",
                    "2012-06-30", "2012-09-30"]  # fmt: skip


def test_no_training_row_is_known_after_its_decision_or_overlaps_validation():
    snapshots = align(market())
    at_I, rows = day_rows(snapshots, CONFIG)
    ts_I = snapshots.ts_T[at_I]
    for i in quarter_decisions(snapshots, at_I, 1.0):
        trains, validates = known_rows(rows, ts_I, i)
        assert trains.any()
        assert validates.any()
        assert (rows.ends_ns_N[trains | validates] <= ts_I[i]).all()
        assert rows.ends_ns_N[trains].max() <= ts_I[rows.day_N[validates]].min()


def test_what_comes_later_changes_no_decision():
    assets = market()
    whole = walk_quarters(align(assets), CONFIG, Costs())
    cut_ns = int(whole.weights.ts_ns[3])
    crash = {}
    for symbol, bars in assets.items():
        factor = np.where(bars.ts_close > cut_ns, 0.5, 1.0)
        prices = {n: getattr(bars, n) * factor for n in ("open", "high", "low", "close")}
        crash[symbol] = replace(bars, **prices)

    other = walk_quarters(align(crash), CONFIG, Costs())

    np.testing.assert_array_equal(other.weights.weight[:4], whole.weights.weight[:4])
    assert not np.array_equal(other.weights.weight[4:], whole.weights.weight[4:])


def test_a_target_is_earned_from_the_next_bar_on():
    snapshots = align(market(years=1.5))
    at_I, rows = day_rows(snapshots, CONFIG)
    bars, n = snapshots.bars[1], int(np.flatnonzero(rows.asset_N == 1)[10])
    now = snapshots.ts_T[at_I[rows.day_N[n]]]

    first = int(np.flatnonzero(bars.ts_close > now)[0])
    last = int(np.flatnonzero(bars.ts_close <= now + 91 * DAY_NS)[-1])
    mid = bars.close + bars.spread / 2
    assert rows.target_N[n] == pytest.approx(np.log(mid[last] / mid[first]))


def test_targets_that_the_recording_does_not_hold_are_missing():
    snapshots = align(market(years=1.5))
    _, rows = day_rows(snapshots, CONFIG)

    assert np.isnan(rows.target_N[rows.ends_ns_N > snapshots.ts_T[-1]]).all()
    assert np.isfinite(rows.target_N[rows.ends_ns_N <= snapshots.ts_T[-1]]).all()


def test_an_asset_that_falls_all_the_time_is_not_held():
    walk = walk_quarters(align(market(drift=(1.5, 1.5, -1.5))), CONFIG, Costs())

    assert (walk.weights.weight[:, 2] == 0).all()
    assert walk.weights.weight[:, :2].sum(axis=1).mean() > 0.6


def test_trades_are_on_prices_after_the_decision():
    snapshots = align(market(drift=(1.5, 1.5, -1.5)))
    walk = walk_quarters(snapshots, CONFIG, Costs())
    prices = executable(snapshots, int(walk.weights.ts_ns[0]))

    account = hold(prices, walk.weights, Costs(latency_ms=50), CONFIG)

    decided = walk.weights.ts_ns[account.fill_decision]
    assert (account.ts_ns[account.fill_row] > decided).all()
    assert len(account)


def test_weights_drift_with_prices():
    # 60 grows by half to 90, cash stays 40
    found = drifted(np.array([0.6, 0.0]), np.array([10.0, np.nan]), np.array([15.0, 3.0]))

    assert found == pytest.approx([90 / 130, 0.0])


def test_a_recording_that_is_too_short_is_one_line():
    with pytest.raises(DataError, match="no quarter's end after 8 years"):
        walk_quarters(align(market()), replace(CONFIG, first_years=8.0), Costs())
    with pytest.raises(DataError, match="training rows, expected 200 or more"):
        walk_quarters(align(market()), replace(CONFIG, first_years=0.1), Costs())


@pytest.mark.parametrize(
    ("key", "value"), [("band", 2.0), ("since", "2007"), ("period_days", 0), ("spread_bps", -1.0)]
)
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(ConfigError, match=f"allocation.{key} is"):
        QuarterlyConfig(**{key: value})
