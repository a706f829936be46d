"""Indicators of snapshots against a plain reading of their definitions, window by window."""

import numpy as np
import pytest

from trademl.errors import ConfigError
from trademl.etl.snapshot_indicators import (
    OF_HORIZON,
    SnapshotRecipe,
    asset_indicators,
    snapshot_indicators,
)
from trademl.market.bars import Bars
from trademl.market.snapshots import align

HOUR = 3_600_000_000_000


def walk(n, seed=0, start=0):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    open_ = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(open_, close) + rng.random(n)
    low = np.minimum(open_, close) - rng.random(n)
    ts = (np.arange(n) + start) * HOUR
    return Bars(ts, ts + HOUR, open_, high, low, close, 0.1 + 2 * rng.random(n))


def by_definition(bars, m, h):
    """The figures of bar m, of the mids of the h bars that end with it and the close before."""
    half = bars.spread / 2
    c = (bars.close + half)[m - h : m + 1]
    high, low = (bars.high + half)[m - h + 1 : m + 1], (bars.low + half)[m - h + 1 : m + 1]
    step, r = np.diff(c), np.diff(np.log(c))
    true = np.maximum(high, c[:-1]) - np.minimum(low, c[:-1])
    window = c[1:]
    return {
        "momentum": np.log(c[-1] / c[0]),
        "volatility": r.std(ddof=1),
        "sma_gap": c[-1] / window.mean() - 1,
        "zscore": (c[-1] - window.mean()) / window.std(ddof=1),
        "rsi": step[step > 0].sum() / np.abs(step).sum(),
        "stochastic": (c[-1] - low.min()) / (high.max() - low.min()),
        "drawdown": c[-1] / high.max() - 1,
        "range": true.mean() / c[-1],
        "downside": (r[r < 0] ** 2).sum() / (r**2).sum(),
    }


@pytest.mark.parametrize("horizon", [2, 7, 50])
def test_each_value_is_that_of_its_definition(horizon):
    bars = walk(400)

    found = asset_indicators(bars, SnapshotRecipe([horizon]))[:, 2:]

    assert np.isnan(found[:horizon]).all()
    for m in range(horizon, 400):
        expected = by_definition(bars, m, horizon)
        np.testing.assert_allclose(found[m], [expected[n] for n in OF_HORIZON], 2e-5, 2e-6)


def test_later_bars_change_no_value():
    assets = {"a": walk(300, 1), "b": walk(250, 2, start=30)}
    recipe = SnapshotRecipe([5, 40])
    whole = snapshot_indicators(align(assets), recipe)

    for n in (60, 151, 299):
        cut = align({s: b.slice(0, int((b.ts_close <= n * HOUR).sum())) for s, b in assets.items()})
        found = snapshot_indicators(cut, recipe)
        np.testing.assert_array_equal(found, whole[: len(found)])
        assert len(found) == n


def test_rounding_does_not_add_up():
    rng = np.random.default_rng(3)
    close = np.concatenate([rng.lognormal(12, 1, 2_000), np.full(300, 7.0)])
    ts = np.arange(len(close)) * HOUR
    bars = Bars(ts, ts + HOUR, close, close, close, close, np.zeros(len(close)))

    last = asset_indicators(bars, SnapshotRecipe([100]))[-1, 2:]

    still = dict(zip(OF_HORIZON, last.tolist(), strict=True))
    assert still["volatility"] == 0
    assert still["zscore"] == 0
    assert still["rsi"] == still["stochastic"] == still["downside"] == 0.5


def test_an_asset_that_has_not_traded_for_long_has_no_values_and_no_say():
    assets = {"open": walk(200, 1), "shut": walk(100, 2)}
    recipe = SnapshotRecipe([5], max_age_s=10 * 3600)

    found = snapshot_indicators(align(assets), recipe)

    assert not np.isnan(found[109, 1]).any()
    assert np.isnan(found[110, 1]).all()
    relative = recipe.names.index("relative_momentum_5")
    assert found[110, 0, relative] == 0  # the mean is its own
    own = recipe.names.index("momentum_5")
    half = (found[50, 0, own] - found[50, 1, own]) / 2
    np.testing.assert_allclose(found[50, :, relative], [half, -half], rtol=1e-5)


def test_a_horizon_is_two_bars_or_more():
    with pytest.raises(ConfigError, match=r"horizons are \[1\]"):
        SnapshotRecipe([1])


def test_there_are_more_than_thirty_indicators_of_an_asset():
    assert len(set(SnapshotRecipe().names)) == len(SnapshotRecipe().names) >= 30
