"""The simulated feed: fair where no edge is planted, as unfair as said where one is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trademl.errors import ConfigError
from trademl.ingest.order_bot import OrderBotConfig, place_orders
from trademl.ingest.simulated import (
    SimulatedMarket,
    simulate,
    true_win_probability,
    write_simulation,
)
from trademl.ingest.sources import FeedConfig, read_quotes
from trademl.market.costs import Costs
from trademl.market.fills import settle

FREE = SimulatedMarket(n_quotes=200_000, spread_ticks=0.0)
LIVELY = {"regime_s": 900.0, "jumps_per_hour": 20.0}


@pytest.mark.parametrize("kind", [{}, LIVELY])
def test_without_an_edge_nothing_in_the_past_foretells_a_move(kind):
    found = simulate(replace(FREE, **kind))
    move = np.diff(found.quotes.mid)
    past = {
        "nothing": np.ones(len(move) - 60),
        "the last move": move[59:-1],
        "the last minute": np.convolve(move, np.ones(60), "valid")[:-1],
        "the signal": found.signal_P[60:-1].astype(float),
    }
    future = move[60:]

    # each t-statistic is standard normal for a martingale: beyond 4 once in 16,000
    for name, known in past.items():
        gain = known * future
        assert abs(gain.mean() / gain.std() * np.sqrt(len(gain))) < 4, name


def test_without_an_edge_and_costs_orders_earn_nothing_on_average():
    bot = OrderBotConfig(interval_s=30, barrier_unit="price", take_profit=1.0, stop_loss=1.0)
    quotes = simulate(FREE).quotes
    pnl = settle(quotes, place_orders(quotes, bot), Costs()).pnl
    pnl = pnl[~np.isnan(pnl)]

    assert abs(pnl.mean() / pnl.std() * np.sqrt(len(pnl))) < 4


def test_moves_lean_towards_the_signal_by_the_edge():
    found = simulate(SimulatedMarket(n_quotes=200_000, edge=0.1, signal_s=1.0))
    move = np.diff(found.quotes.mid)
    went_its_way = (move * found.signal_P[:-1])[move != 0] > 0

    # of 170,000 moves 55 % go its way; the standard error is 0.12 %
    assert went_its_way.mean() == pytest.approx(0.55, abs=0.005)


def test_the_signal_shows_in_the_spread_and_nowhere_else():
    found = simulate(SimulatedMarket(n_quotes=5000, signal_s=60, edge=0.1, spread_ticks=2.0))

    is_wide = found.quotes.spread > 0.5
    np.testing.assert_array_equal(np.where(is_wide, 1, -1), found.signal_P)


@pytest.mark.parametrize("lean", [0.0, 0.08, -0.08])
def test_the_oracle_knows_how_often_a_walk_wins(lean):
    rng = np.random.default_rng(0)
    walks = np.cumsum(np.where(rng.random((20_000, 400)) < (1 + lean) / 2, 1, -1), axis=1)
    first_up = np.where((walks >= 5).any(1), (walks >= 5).argmax(1), 400)
    first_down = np.where((walks <= -4).any(1), (walks <= -4).argmax(1), 400)
    won = (first_up < first_down).mean()

    known = true_win_probability(np.array([lean]), np.array([5]), np.array([4]))

    assert known[0] == pytest.approx(won, abs=0.012)  # standard error 0.0035


def test_the_same_seed_gives_the_same_file(tmp_path):
    market = SimulatedMarket(n_quotes=500)
    for name in ("a", "b"):
        write_simulation(tmp_path / f"{name}.parquet", market)
    write_simulation(tmp_path / "c.parquet", replace(market, seed=8))

    a, b, c = ((tmp_path / f"{name}.parquet").read_bytes() for name in "abc")
    assert a == b != c


def test_a_written_market_is_read_like_any_recording(tmp_path):
    market = SimulatedMarket(n_quotes=500, interval_s=0.5)
    write_simulation(tmp_path / "sim.parquet", market)

    read, made = read_quotes(FeedConfig(str(tmp_path / "sim.parquet"))), simulate(market).quotes

    for name in ("ts_event", "bid", "ask", "mid_open", "high", "low", "flags"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name), name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_quotes": 0}, "n_quotes is 0"),
        ({"edge": 1.0}, "edge is 1.0"),
        ({"edge": 0.1, "spread_ticks": 0.0}, "shows itself in the spread"),
        ({"regime_s": -1.0}, "regime_s is -1.0"),
        ({"interval_s": float("nan")}, "interval_s is nan"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        SimulatedMarket(**values)


def test_a_price_that_falls_to_nothing_is_refused():
    with pytest.raises(ConfigError, match="raise start_price"):
        simulate(SimulatedMarket(start_price=1.0))


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="ends in .parquet"):
        write_simulation(tmp_path / "sim.csv", SimulatedMarket())
