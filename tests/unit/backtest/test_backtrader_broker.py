"""The quote broker under strategies that a user might write."""

from __future__ import annotations

import backtrader as bt
import pytest
from backtest_cases import bids, quotes_of

from trademl.backtest.backtrader_engine import QuoteBroker, QuoteFeed
from trademl.errors import ConfigError
from trademl.market.costs import Costs

CROSSED = (101.0, 100.0)


class Scripted(bt.Strategy):
    """Calls ``script[k](strategy)`` on quote k and remembers what it is told."""

    params = (("script", None),)

    def __init__(self):
        self.orders, self.heard, self.closed, self.values = [], [], [], []

    def next(self):
        if (act := self.p.script.get(self.data.at)) is not None:
            self.orders.append(act(self))
        self.values.append(self.broker.getvalue())

    def notify_order(self, order):
        self.heard.append((self.data.at, order.getstatusname()))

    def notify_trade(self, trade):
        if trade.isclosed:
            self.closed.append((trade.pnl, trade.pnlcomm))


def run(quotes, script, costs=None, cash=1_000.0, **options):
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.setbroker(QuoteBroker(costs=costs or Costs(), cash=cash))
    cerebro.adddata(QuoteFeed(quotes=quotes))
    cerebro.addstrategy(Scripted, script=script)
    (strategy,) = cerebro.run(**options)
    return strategy


def filled(order):
    return order.info.quote_index, order.executed.price


def test_market_order_fills_on_the_quote_of_its_decision():
    strategy = run(bids(100, 101), {0: lambda s: s.buy()})

    assert filled(strategy.orders[0]) == (0, 100.25)


def test_market_order_on_a_flagged_quote_waits():
    quotes = quotes_of((99, 99.25), CROSSED, CROSSED, (100, 100.25))

    strategy = run(quotes, {1: lambda s: s.sell()})

    assert filled(strategy.orders[0]) == (3, 100)


def test_limit_entry_fills_at_its_price_over_a_gap():
    strategy = run(bids(100, 100, 98), {0: lambda s: s.buy(exectype=bt.Order.Limit, price=99.5)})

    assert filled(strategy.orders[0]) == (2, 99.5)


def test_limit_order_is_looked_at_from_the_next_quote_on():
    strategy = run(bids(100, 100), {0: lambda s: s.buy(exectype=bt.Order.Limit, price=105)})

    assert filled(strategy.orders[0]) == (1, 105)


def test_stop_entry_fills_at_the_touch_beyond_and_slips():
    strategy = run(
        bids(100, 100, 102),
        {0: lambda s: s.buy(exectype=bt.Order.Stop, price=101)},
        Costs(slippage=0.25),
    )

    assert filled(strategy.orders[0]) == (2, 102.5)


def test_filled_order_cancels_those_joined_to_it():
    def bracket(s):
        target = s.sell(exectype=bt.Order.Limit, price=102)
        return target, s.sell(exectype=bt.Order.Stop, price=99, oco=target)

    strategy = run(bids(100, 100, 98.5, 103), {0: lambda s: s.buy(), 1: bracket})

    target, stop = strategy.orders[1]
    assert target.status == bt.Order.Canceled
    assert filled(stop) == (2, 98.5)
    assert strategy.position.size == 0


def test_of_joined_orders_that_one_quote_reaches_the_first_fills():
    def two_targets(s):
        near = s.sell(exectype=bt.Order.Limit, price=101)
        return near, s.sell(exectype=bt.Order.Limit, price=102, oco=near)

    strategy = run(bids(100, 103), {0: two_targets})

    near, far = strategy.orders[0]
    assert filled(near) == (1, 101)
    assert far.status == bt.Order.Canceled


LATE = Costs(latency_ms=1_500)


def test_market_order_fills_when_it_arrives():
    strategy = run(bids(100, 101, 102, 103), {0: lambda s: s.buy()}, LATE)

    assert filled(strategy.orders[0]) == (2, 102.25)


def test_order_decided_earlier_by_the_clock_arrives_earlier():
    quotes = bids(100, 101, 102, 103)
    script = {1: lambda s: s.buy(decided_at_ns=int(quotes.ts_event[0]))}

    strategy = run(quotes, script, LATE)

    assert filled(strategy.orders[0]) == (2, 102.25)


def test_triggered_stop_cancels_what_is_joined_to_it_and_fills_when_it_arrives():
    def bracket(s):
        target = s.sell(exectype=bt.Order.Limit, price=102)
        return target, s.sell(exectype=bt.Order.Stop, price=99, oco=target)

    strategy = run(bids(100, 98.5, 103, 101), {0: bracket}, LATE)

    target, stop = strategy.orders[0]
    assert target.status == bt.Order.Canceled
    assert filled(stop) == (3, 101)


def test_triggered_stop_can_be_cancelled_on_its_way():
    script = {
        0: lambda s: s.sell(exectype=bt.Order.Stop, price=99),
        1: lambda s: s.cancel(s.orders[0]),
    }

    strategy = run(bids(100, 98.5, 97, 96), script, LATE)

    assert strategy.orders[0].status == bt.Order.Canceled
    assert strategy.position.size == 0


def test_limit_order_is_triggered_where_take_profits_are_market_orders():
    costs = Costs(slippage=0.25, take_profit_is_market=True)

    strategy = run(bids(100, 103), {0: lambda s: s.sell(exectype=bt.Order.Limit, price=102)}, costs)

    assert filled(strategy.orders[0]) == (1, 102.75)


def test_order_can_be_cancelled_once():
    def place_and_cancel(s):
        order = s.buy(exectype=bt.Order.Limit, price=99)
        s.cancel(order)
        assert s.broker.cancel(order) is False
        return order

    strategy = run(bids(100, 95), {0: place_and_cancel})

    assert strategy.orders[0].status == bt.Order.Canceled


def test_cash_value_and_position_follow_the_fills():
    script = {0: lambda s: s.buy(size=2), 2: lambda s: s.close()}

    strategy = run(bids(100, 101, 102), script, Costs(fee_per_unit=0.5))

    # 1000 - 2 * 100.25 - 1 = 798.50 in cash; the position is marked at the bid
    assert strategy.values == [998.5, 1000.5, 1001.5]
    assert strategy.broker.getcash() == 798.5 + 204 - 1
    assert strategy.position.size == 0


def test_value_marks_a_sold_position_at_the_last_executable_ask():
    quotes = quotes_of((100, 100.25), (98, 98.25), CROSSED)

    strategy = run(quotes, {0: lambda s: s.sell()})

    assert strategy.values == [999.75, 1001.75, 1001.75]
    assert strategy.broker.getvalue([strategy.data]) == -98.25


def test_fills_and_closed_trades_are_notified():
    script = {0: lambda s: s.buy(), 1: lambda s: s.close()}

    strategy = run(bids(100, 101, 102), script, Costs(fee_per_unit=0.5))

    assert strategy.heard[:3] == [(1, "Submitted"), (1, "Accepted"), (1, "Completed")]
    assert strategy.closed == [(0.75, -0.25)]


def test_reversal_closes_and_opens_in_one_fill():
    script = {0: lambda s: s.buy(), 1: lambda s: s.sell(size=3)}

    strategy = run(bids(100, 101, 102), script)

    assert strategy.position.size == -2
    assert strategy.orders[1].executed.pnl == 0.75
    assert strategy.broker.getcash() == 1000 - 100.25 + 303


def test_quotes_of_equal_time_are_told_apart():
    script = {1: lambda s: s.buy(exectype=bt.Order.Limit, price=99)}

    strategy = run(bids(98, 98, 98, at_s=[7, 7, 7]), script)

    assert filled(strategy.orders[0])[0] == 2


@pytest.mark.parametrize("options", [{"preload": False}, {"runonce": False}, {"exactbars": 1}])
def test_every_way_to_run_backtrader_makes_the_same_fills(options):
    script = {1: lambda s: s.buy(), 3: lambda s: s.close()}

    strategy = run(bids(100, 101, 102, 103, 104, at_s=[0, 1, 1, 1, 2]), script, **options)

    assert [filled(order) for order in strategy.orders] == [(1, 101.25), (3, 103)]


def test_bars_made_of_the_quotes_can_be_watched_and_not_traded():
    feed = QuoteFeed(quotes=bids(100, 101, 102, at_s=[0, 61, 122]))
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.setbroker(QuoteBroker())
    cerebro.adddata(feed)
    cerebro.resampledata(feed, timeframe=bt.TimeFrame.Minutes)
    cerebro.addstrategy(Scripted, script={2: lambda s: s.buy(data=s.data1)})

    with pytest.raises(ConfigError, match="not on another data"):
        cerebro.run()


def test_second_recording_is_refused():
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.setbroker(QuoteBroker())
    for quotes in (bids(100, 101), bids(50, 51)):
        cerebro.adddata(QuoteFeed(quotes=quotes))

    with pytest.raises(ConfigError, match="one QuoteFeed, was given 2"):
        cerebro.run()


@pytest.mark.parametrize(
    "order",
    [
        {"exectype": bt.Order.StopTrail, "price": 99},
        {"exectype": bt.Order.Close},
        {"exectype": bt.Order.Limit},
        {"exectype": bt.Order.Limit, "price": 99, "valid": 0},
        {"transmit": False},
    ],
)
def test_order_that_the_quotes_cannot_settle_is_refused(order):
    with pytest.raises(ConfigError):
        run(bids(100, 100), {0: lambda s: s.buy(**order)})
