"""Every engine on recordings whose trades are worked out by hand; prices tick by 0.25."""

from __future__ import annotations

import numpy as np
import pytest
from backtest_cases import BUY, FAR, SELL, bids, quotes_of, signal, signals_of

from trademl.backtest.backtrader_engine import run_backtrader
from trademl.backtest.compiled import run_compiled
from trademl.backtest.trades import OpenPosition
from trademl.errors import DataError
from trademl.market.costs import Costs
from trademl.market.orders import ExitReason

FREE = Costs()
CROSSED = (101.0, 100.0)
ONE_SIDED = (np.nan, 100.0)


@pytest.fixture(params=[run_compiled, run_backtrader], ids=["compiled", "backtrader"])
def run(request):
    return request.param


def test_take_profit_over_a_gap_fills_at_its_price(run):
    trades = run(bids(100, 100.5, 103), signals_of(signal(0, BUY, 1, 1)), FREE)

    assert trades.entry_price.tolist() == [100.25]
    assert trades.exit_price.tolist() == [101.25]
    assert trades.exit_index.tolist() == [2]
    assert trades.reason.tolist() == [ExitReason.TAKE_PROFIT]
    assert trades.pnl.tolist() == [1.0]


def test_stop_over_a_gap_fills_at_the_first_bid_beyond_it(run):
    trades = run(bids(100, 99.5, 97.75, 99), signals_of(signal(0, BUY, 1, 1)), FREE)

    assert trades.exit_price.tolist() == [97.75]
    assert trades.exit_index.tolist() == [2]
    assert trades.reason.tolist() == [ExitReason.STOP_LOSS]
    assert trades.pnl.tolist() == [-2.5]


def test_sell_enters_at_the_bid_and_leaves_at_the_ask(run):
    quotes = quotes_of((100, 100.25), (99, 99.25), (98.25, 98.5))

    trades = run(quotes, signals_of(signal(0, SELL, 1, 1)), FREE)

    assert trades.side.tolist() == [SELL]
    assert trades.entry_price.tolist() == [100]
    assert trades.exit_price.tolist() == [99]
    assert trades.exit_index.tolist() == [2]
    assert trades.pnl.tolist() == [1.0]


def test_sell_is_stopped_at_the_first_ask_beyond(run):
    quotes = quotes_of((100, 100.25), (100.5, 100.75), (101.5, 101.75))

    trades = run(quotes, signals_of(signal(0, SELL, 1, 1)), FREE)

    assert trades.exit_price.tolist() == [101.75]
    assert trades.pnl.tolist() == [-1.75]


def test_time_exit_is_at_the_touch_of_the_first_quote_at_the_limit(run):
    quotes = bids(100, 100.5, 100.25, 101, at_s=[0, 1, 2, 3])

    trades = run(quotes, signals_of(signal(0, time_limit_s=2)), FREE)

    assert trades.exit_index.tolist() == [2]
    assert trades.exit_price.tolist() == [100.25]
    assert trades.reason.tolist() == [ExitReason.TIME]


def test_barrier_counts_before_time_on_one_quote(run):
    trades = run(bids(100, 103), signals_of(signal(0, BUY, 1, 1, 1)), FREE)

    assert trades.reason.tolist() == [ExitReason.TAKE_PROFIT]


def test_time_limit_runs_from_the_entry_and_not_from_the_decision(run):
    quotes = quotes_of(CROSSED, CROSSED, (100, 100.25), (100, 100.25), (100, 100.25))

    trades = run(quotes, signals_of(signal(0, time_limit_s=2)), FREE)

    assert trades.entry_index.tolist() == [2]
    assert trades.exit_index.tolist() == [4]


@pytest.mark.parametrize("flagged", [CROSSED, ONE_SIDED, (200.0, 199.0), (90.0, 89.0)])
def test_flagged_quote_fills_nothing(run, flagged):
    quotes = quotes_of(flagged, (100, 100.25), flagged, flagged, (101.5, 101.75))

    trades = run(quotes, signals_of(signal(0, BUY, 1, 1)), FREE)

    assert trades.entry_index.tolist() == [1]
    assert trades.exit_index.tolist() == [4]
    assert trades.exit_price.tolist() == [101.25]


def test_barrier_wins_on_the_quote_after_a_flagged_one_past_the_limit(run):
    quotes = quotes_of((100, 100.25), CROSSED, (101.5, 101.75))

    trades = run(quotes, signals_of(signal(0, BUY, 1, 1, time_limit_s=1)), FREE)

    assert trades.reason.tolist() == [ExitReason.TAKE_PROFIT]


def test_entry_quote_does_not_stop_its_own_position(run):
    quotes = quotes_of((90, 100), (90.25, 100))

    trades = run(quotes, signals_of(signal(0, BUY, 1, 1)), FREE)

    assert trades.exit_index.tolist() == [1]
    assert trades.exit_price.tolist() == [90.25]


def test_fees_are_paid_on_both_sides_and_a_take_profit_does_not_slip(run):
    costs = Costs(fee_bps=10, fee_per_unit=0.5, slippage=0.25)

    trades = run(bids(100, 102.25), signals_of(signal(0, BUY, 1.5, 1.5)), costs)

    assert trades.entry_price.tolist() == [100.5]
    assert trades.exit_price.tolist() == [102.0]
    assert trades.entry_fees == pytest.approx([0.6005])
    assert trades.fees == pytest.approx([0.6005 + 0.602])
    assert trades.pnl == pytest.approx([1.5 - 1.2025])


@pytest.mark.parametrize(("limit_s", "exit_price"), [(9, 98.5), (1, 99.25)])
def test_stop_and_time_exit_slip(run, limit_s, exit_price):
    quotes = bids(100, 99.5, 98.75)

    trades = run(quotes, signals_of(signal(0, BUY, FAR, 1.5, limit_s)), Costs(slippage=0.25))

    assert trades.exit_price.tolist() == [exit_price]


def test_signals_while_in_position_are_skipped(run):
    quotes = bids(100, 100, 100, 101.5, 100)

    trades = run(quotes, signals_of(*(signal(k, BUY, 1, 1) for k in (0, 0, 1, 2))), FREE)

    assert trades.order_id.tolist() == [10]
    assert trades.skipped_while_in_position == 3


def test_exit_frees_its_quote_for_the_decision_on_it(run):
    quotes = bids(100, 101.5, 103)

    trades = run(quotes, signals_of(signal(0, BUY, 1, 1), signal(1, SELL, 1, 1)), FREE)

    assert trades.order_id.tolist() == [10, 11]
    assert trades.exit_index.tolist() == [1, 2]
    assert trades.entry_index.tolist() == [0, 1]


def test_time_exit_frees_its_quote_for_the_decision_on_it(run):
    quotes = bids(100, 100, 100)

    trades = run(quotes, signals_of(signal(0, time_limit_s=1), signal(1, time_limit_s=1)), FREE)

    assert trades.entry_index.tolist() == [0, 1]
    assert trades.exit_index.tolist() == [1, 2]


def test_waiting_entry_keeps_others_out(run):
    quotes = quotes_of(CROSSED, CROSSED, (100, 100.25), (101.5, 101.75))

    trades = run(quotes, signals_of(*(signal(k, BUY, 1, 1) for k in (0, 1, 2))), FREE)

    assert trades.order_id.tolist() == [10]
    assert trades.entry_index.tolist() == [2]
    assert trades.skipped_while_in_position == 2


def test_position_open_at_the_end_is_no_trade(run):
    costs = Costs(fee_per_unit=0.5)

    trades = run(bids(100, 100.5), signals_of(signal(1, score=0.75)), costs)

    assert len(trades) == 0
    assert trades.open_at_end == OpenPosition(10, BUY, 1, 100.75, 0.5, 0.75)


def test_entry_without_an_executable_quote_is_unfilled(run):
    trades = run(quotes_of((100, 100.25), CROSSED), signals_of(signal(1), signal(1)), FREE)

    assert (trades.unfilled, trades.skipped_while_in_position) == (1, 1)
    assert trades.open_at_end is None


def test_quotes_of_equal_time_keep_file_order(run):
    quotes = bids(100, 100.5, 101.5, 99, at_s=[5, 5, 5, 5])

    trades = run(quotes, signals_of(signal(0, BUY, 1, 1), signal(2, BUY, 1, 1)), FREE)

    assert trades.entry_index.tolist() == [0, 2]
    assert trades.exit_index.tolist() == [2, 3]
    assert trades.exit_price.tolist() == [101.25, 99]


def test_times_a_nanosecond_apart_are_told_apart(run):
    quotes = bids(100, 100.25, 100.5)
    quotes.ts_event[:] = quotes.ts_event[0] + np.array([0, 999_999_999, 1_000_000_000])

    trades = run(quotes, signals_of(signal(0, time_limit_s=1)), FREE)

    assert trades.exit_index.tolist() == [2]


def test_decimal_prices_tie_as_printed(run):
    quotes = quotes_of((1.0, 1.1), (1.2, 1.3))
    assert 1.1 + 0.1 > 1.2  # the barrier, in binary, lies beyond the bid

    trades = run(quotes, signals_of(signal(0, BUY, 0.1, 1)), FREE)

    assert trades.reason.tolist() == [ExitReason.TAKE_PROFIT]


def test_stop_may_lie_at_a_price_of_zero(run):
    trades = run(bids(0.75, 0.5, 0.0), signals_of(signal(0, BUY, FAR, 1)), FREE)

    assert trades.exit_index.tolist() == [2]


def test_no_signals_make_no_trades(run):
    trades = run(bids(100, 101), signals_of(), FREE)

    assert len(trades) == 0
    assert trades.pnl.dtype == np.float64


def test_trades_ignore_every_quote_after_their_exit(run):
    quotes, signals = (
        bids(100, 101.5, 100, 101.5, 99),
        signals_of(signal(0, BUY, 1, 1), signal(2, BUY, 1, 1)),
    )
    tampered = bids(100, 101.5, 100, 50, 200)

    before, after = (run(q, signals, FREE) for q in (quotes, tampered))

    assert before.exit_price[0] == after.exit_price[0] == 101.25
    assert before.exit_price[1] != after.exit_price[1]


def test_signal_outside_the_recording_is_named(run):
    with pytest.raises(DataError, match="order 0 is decided on quote 2"):
        run(bids(100, 101), signals_of(signal(2)), FREE)


def test_signals_out_of_order_are_named(run):
    with pytest.raises(DataError, match="signal 1 is decided on quote 0, before"):
        run(bids(100, 101), signals_of(signal(1), signal(0)), FREE)
