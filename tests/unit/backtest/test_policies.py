"""Targets in two engines and by hand, sizes, limits, and strategies of a user's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from backtest_cases import BUY, bids, signal, signals_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_parity import books, costs_of_any_kind

from trademl.backtest.backtrader_engine.engine import run_targets
from trademl.backtest.callback import LEAVE, Bracket, run_callback
from trademl.backtest.compiled import run_compiled
from trademl.backtest.limits import Limits
from trademl.backtest.parity import check_parity
from trademl.backtest.run import backtest
from trademl.backtest.settings import BacktestConfig
from trademl.backtest.signals import check_signals
from trademl.backtest.sizing import kelly_units
from trademl.backtest.targets import Targets, entries_and_exits, run_compiled_targets
from trademl.backtest.user_strategy import backtest_strategy
from trademl.errors import ConfigError, DataError
from trademl.market.costs import Costs

FREE = Costs()
SURE = BacktestConfig(reject_share=0.0)


@st.composite
def targets_on(draw):
    quotes, costs = draw(books()), draw(costs_of_any_kind())
    at = draw(st.lists(st.integers(0, len(quotes) - 1), unique=True, max_size=12).map(sorted))
    units = [draw(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])) for _ in at]
    limits = Limits(daily_loss=draw(st.sampled_from([5.0, np.inf])), max_units=2.0)
    return quotes, Targets(np.array(at, np.int64), np.array(units)), costs, limits


@settings(max_examples=150, deadline=None)
@given(case=targets_on())
def test_engines_follow_targets_alike(case):
    quotes, targets, costs, limits = case

    compiled = run_compiled_targets(quotes, targets, costs, limits=limits)
    backtrader = run_targets(quotes, targets, costs, limits=limits)

    check_parity(compiled, backtrader, names=("compiled", "backtrader"))


def test_position_turns_round_in_one_order():
    quotes = bids(100, 102, 101)

    trades = run_compiled_targets(quotes, Targets(np.arange(3), np.array([1.0, -1.0, 0.0])), FREE)

    assert trades.side.tolist() == [1, -1]
    assert trades.pnl.tolist() == [1.75, 0.75]  # 102 - 100.25, then 102 - 101.25


def test_growing_position_is_one_trade_at_mean_prices():
    quotes = bids(100, 102, 104)

    trades = run_compiled_targets(quotes, Targets(np.arange(3), np.array([1.0, 3.0, 0.0])), FREE)

    assert (len(trades), trades.size[0]) == (1, 3.0)
    assert trades.entry_price[0] == pytest.approx((100.25 + 2 * 102.25) / 3)
    assert trades.pnl[0] == pytest.approx(3 * 104 - 100.25 - 2 * 102.25)


def test_entries_and_exits_become_targets():
    yes = [
        np.array(column, bool)
        for column in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1])
    ]

    targets = entries_and_exits(*yes)

    assert targets.quote_index.tolist() == [0, 1, 2, 3]
    assert targets.units.tolist() == [1, 0, -1, 0]


def test_targets_out_of_order_are_named():
    with pytest.raises(DataError, match=r"target 1 \(2\.0 units\) on quote 0 is not after"):
        run_compiled_targets(bids(1, 1), Targets(np.array([1, 0]), np.array([1.0, 2.0])), FREE)


def test_policy_may_leave_early():
    def decide(now):
        return LEAVE if now.index == 2 else Bracket(1) if now.index == 0 else None

    trades = run_callback(bids(100, 101, 103, 99), decide, FREE)

    assert (trades.exit_index[0], trades.exit_price[0]) == (2, 103)


def test_policy_sees_no_later_quote():
    seen = []

    def decide(now):
        seen.append(now.history(10)[0].tolist())

    run_callback(bids(1, 2, 3), decide, FREE)

    assert seen == [[1], [1, 2], [1, 2, 3]]


def test_what_ended_before_a_strategy_raised_is_kept_and_marked():
    def decide(now):
        if now.index == 2:
            raise RuntimeError("no more")
        return Bracket(BUY, take_profit=1.0) if now.index == 0 else None

    trades = run_callback(bids(100, 101.5, 101, 102), decide, FREE)

    assert trades.pnl.tolist() == [1.0]
    assert "raised RuntimeError: no more" in trades.stopped
    assert "on quote 2" in trades.stopped


def test_a_day_that_lost_too_much_is_over():
    quotes = bids(100, 98, 98, 98)
    signals = signals_of(signal(0, BUY, 1, 1), signal(2, BUY, 1, 1))

    trades = run_compiled(quotes, signals, FREE, limits=Limits(daily_loss=2.0))

    assert (len(trades), trades.halted) == (1, 1)


def test_rejections_follow_from_seed_and_time():
    quotes = bids(*range(100, 1_100))
    signals = signals_of(*(signal(k, time_limit_s=0) for k in range(1_000)))
    runs = [
        run_compiled(quotes, signals, FREE, limits=Limits(reject_share=0.3, seed=s))
        for s in (1, 1, 2)
    ]

    assert runs[0].rejected == runs[1].rejected != runs[2].rejected
    assert 200 < runs[0].rejected < 400


def test_signal_from_the_future_is_refused_by_name():
    quotes = bids(100, 101)
    signals = replace(signals_of(signal(0)), known_ns=quotes.ts_event[[1]])

    with pytest.raises(DataError, match=r"signal 0 \(order 10\) comes from the future"):
        check_signals(quotes, signals)


def test_kelly_stakes_what_kelly_wrote():
    # no spread, even odds: 2p - 1 = 0.2 of 1000, half of it, over a stop of 5
    quotes = bids(100, spread=0.0)
    signals = signals_of(signal(0, BUY, 5, 5, score=0.6))
    config = BacktestConfig(capital=1_000, sizing="kelly", kelly_fraction=0.5)

    assert kelly_units(quotes, signals, FREE, config) == pytest.approx([20.0])


def test_kelly_needs_probabilities():
    config = BacktestConfig(sizing="kelly")

    with pytest.raises(DataError, match=r"a score of 1\.5"):
        kelly_units(bids(100), signals_of(signal(0, score=1.5)), FREE, config)


def test_two_currencies_are_refused():
    with pytest.raises(ConfigError, match="the account is in EUR and the instrument in USD"):
        BacktestConfig(account_currency="EUR", instrument_currency="usd")


def test_market_without_any_size_is_refused():
    quotes = replace(bids(100, 101), bid_size=np.zeros(2), ask_size=np.ones(2))

    with pytest.raises(DataError, match="no executable quote shows any size at the bid"):
        backtest(quotes, signals_of(signal(0)), FREE, threshold=0, engines=["compiled"])


def test_ladder_charges_the_spread_and_the_fees_again():
    quotes = bids(100, 100, spread=0.5)
    signals = signals_of(signal(0, time_limit_s=0))
    costs = Costs(fee_per_unit=0.25)

    found = backtest(quotes, signals, costs, threshold=0, engines=["compiled"], config=SURE)

    assert found.metrics["cost_ladder"] == {"1x": -1.0, "2x": -2.0, "3x": -3.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = ", "cannot be imported: SyntaxError"), ("x = 1", "holds 0 backtrader strategies")],
)
def test_file_without_a_strategy_is_refused(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)

    with pytest.raises(ConfigError, match=message):
        backtest_strategy(tmp_path / "mine.py", bids(100), FREE, SURE)
