"""The engines agree with each other and with a slow reading of the rules, whatever happens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from backtest_cases import START_NS, bids, quotes_of, signal, signals_of
from hypothesis import given, settings
from hypothesis import strategies as st

from trademl.backtest.backtrader_engine import run_backtrader
from trademl.backtest.callback import Bracket, run_callback
from trademl.backtest.compiled import run_compiled
from trademl.backtest.limits import Limits
from trademl.backtest.parity import check_parity
from trademl.backtest.score_rule import ScoreRule, sweep_scores, trade_scores
from trademl.backtest.trades import OpenPosition, Trades
from trademl.market.costs import Costs
from trademl.market.orders import ExitReason
from trademl.market.quotes import NS_PER_S

TICK = 0.25
ticks = st.integers(1, 12).map(lambda n: n * TICK)


@st.composite
def recordings(draw):
    """A few quotes that jump by ticks, repeat times and are flagged now and then."""
    n = draw(st.integers(1, 40))
    bid = 100 + TICK * np.cumsum(draw(st.lists(st.integers(-6, 6), min_size=n, max_size=n)))
    spread = TICK * np.array(draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n)))
    absent = np.array(draw(st.lists(st.integers(0, 7), min_size=n, max_size=n))) == 0
    gaps = draw(st.lists(st.sampled_from([0, 0, 1e-9, 1, 2, 60]), min_size=n, max_size=n))
    rows = zip(np.where(absent, np.nan, bid), bid + spread, strict=True)
    return quotes_of(*rows, at_s=np.cumsum(gaps).tolist())


@st.composite
def costs_of_any_kind(draw):
    return Costs(
        fee_bps=draw(st.sampled_from([0, 1.5])),
        fee_per_unit=draw(st.sampled_from([0, 0.1])),
        slippage=draw(st.sampled_from([0, 0.1, 0.25])),
        slippage_spreads=draw(st.sampled_from([0, 0.5])),
        slippage_volatility=draw(st.sampled_from([0, 2.0])),
        impact=draw(st.sampled_from([0, 0, 1.0])),
        daily_volume_units=86_400.0,
        latency_ms=draw(st.sampled_from([0, 0, 1e-6, 1_000, 1_500, 60_000])),
        quote_delay_ms=draw(st.sampled_from([0, 0, 500, 1_000])),
        take_profit_is_market=draw(st.booleans()),
        partial_fills=draw(st.booleans()),
        spread_scale=draw(st.sampled_from([1, 1, 0, 2])),
        multiplier=draw(st.sampled_from([1, 50])),
        financing_long_pct=draw(st.sampled_from([0, 365])),
        financing_short_pct=draw(st.sampled_from([0, -36.5])),
        rollover="17:13:25",  # five seconds after the first quote
    )


@st.composite
def books(draw):
    """Recordings that show sizes, some of them none, and a volatility for each quote."""
    quotes = draw(recordings())
    sizes = st.lists(
        st.sampled_from([0, 0.5, 1, 2, 100]), min_size=len(quotes), max_size=len(quotes)
    )
    bid_size, ask_size, volatility = (np.array(draw(sizes), float) for _ in range(3))
    return replace(quotes, bid_size=bid_size, ask_size=ask_size, volatility=volatility / 10)


@st.composite
def cases(draw):
    quotes = draw(books())
    row = st.builds(
        signal,
        quote_index=st.integers(0, len(quotes) - 1),
        side=st.sampled_from([1, -1]),
        take_profit=ticks,
        stop_loss=ticks,
        time_limit_s=st.sampled_from([0, 1, 2, 5, 100]),
        score=st.floats(0, 1),
    )
    signals = signals_of(*sorted(draw(st.lists(row, max_size=20))))
    sizes = st.sampled_from([0.5, 1.0, 1.5, 3.0])
    size = np.array([draw(sizes) for _ in range(len(signals))], float)
    return quotes, replace(signals, size=size), draw(costs_of_any_kind())


def policy_of(signals):
    """Return the signals as a function that is asked on every quote."""
    first = {}
    for row, k in enumerate(signals.orders.quote_index):
        first.setdefault(int(k), row)

    def decide(now):
        if (row := first.get(now.index)) is None:
            return None
        orders = signals.orders
        return Bracket(
            orders.side[row],
            orders.take_profit[row],
            orders.stop_loss[row],
            orders.time_limit_ns[row] / NS_PER_S,
            signals.units[row],
            signals.score[row],
            signals.order_id[row],
        )

    return decide


def without_counts(trades):
    """Leave out what a function on each quote cannot count: several signals on one quote."""
    return replace(trades, skipped_while_in_position=0)


@settings(max_examples=300, deadline=None)
@given(case=cases())
def test_engines_agree_trade_by_trade(case):
    compiled, backtrader, by_hand = run_compiled(*case), run_backtrader(*case), trade_by_hand(*case)
    called = run_callback(case[0], policy_of(case[1]), case[2])

    check_parity(compiled, by_hand, names=("compiled", "by hand"))
    check_parity(compiled, backtrader, names=("compiled", "backtrader"))
    check_parity(without_counts(compiled), without_counts(called), names=("compiled", "callback"))


@settings(max_examples=100, deadline=None)
@given(
    case=cases(),
    limits=st.builds(
        Limits,
        daily_loss=st.sampled_from([1.0, 20.0, np.inf]),
        drawdown=st.sampled_from([2.0, 50.0, np.inf]),
        max_units=st.sampled_from([1.0, np.inf]),
        reject_share=st.sampled_from([0.0, 0.4]),
        seed=st.integers(0, 5),
    ),
)
def test_engines_agree_within_limits(case, limits):
    quotes, signals, costs = case
    alone = signals.take(np.diff(signals.orders.quote_index, prepend=-1) > 0)
    compiled = run_compiled(quotes, alone, costs, limits=limits)
    backtrader = run_backtrader(quotes, alone, costs, limits=limits)
    called = run_callback(quotes, policy_of(alone), costs, limits=limits)

    check_parity(compiled, backtrader, names=("compiled", "backtrader"))
    check_parity(compiled, called, names=("compiled", "callback"))


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_score_rule_is_the_signals_of_its_scores(case):
    quotes, signals, costs = case
    scores = np.full(len(quotes), np.nan)
    scores[signals.orders.quote_index] = signals.score
    at = np.flatnonzero(scores >= 0.5)
    same = signals_of(*(signal(k, 1, 1.0, 2.0, 5, scores[k]) for k in at))
    rule = ScoreRule(0.5, 1.0, 2.0, 5)

    by_rule = trade_scores(quotes, scores, rule, costs)
    by_signals = run_compiled(quotes, replace(same, order_id=at), costs)
    swept = sweep_scores(quotes, scores, [rule], costs, n_threads=1)

    check_parity(by_rule, by_signals, names=("score rule", "signals"))
    assert swept.n_trades[0] == len(by_rule)
    np.testing.assert_allclose(swept.net_pnl[0], by_rule.pnl.sum(), atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_every_signal_is_accounted_for(case):
    trades = run_compiled(*case)

    rest = trades.skipped_while_in_position + trades.unfilled + (trades.open_at_end is not None)
    assert len(trades) + rest == len(case[1])


class Walk:
    """The rules read aloud: one position, quote by quote, in plain Python."""

    def __init__(self, quotes, signals, costs):
        self.quotes, self.signals, self.costs = quotes, signals, costs
        half = costs.spread_scale * (quotes.ask - quotes.bid) / 2
        mid = (quotes.bid + quotes.ask) / 2
        self.bid, self.ask = mid - half, mid + half
        self.latency = round(costs.latency_ms * 1e6)
        self.seen = round((costs.latency_ms + costs.quote_delay_ms) * 1e6)

    def shown(self, k, is_buy):
        sizes = self.quotes.ask_size if is_buy else self.quotes.bid_size
        return sizes[k] if self.costs.partial_fills else np.inf

    def market(self, k, is_buy, size):
        """Return what an order of ``size`` units pays on quote k."""
        costs, volatility = self.costs, self.quotes.volatility[k]
        worse = costs.slippage + costs.slippage_spreads * (self.ask[k] - self.bid[k])
        worse += volatility * (costs.slippage_volatility + costs.impact * np.sqrt(size))
        return self.ask[k] + worse if is_buy else self.bid[k] - worse

    def run(self):
        quotes, orders = self.quotes, self.signals.orders
        wanted, held, done, skipped = None, None, [], 0
        for k in range(len(quotes)):
            now, can_trade = quotes.ts_event[k], quotes.bid[k] <= quotes.ask[k]
            if can_trade and held and self.leave(held, k):
                done.append(held)
                held = None
            for row in np.flatnonzero(orders.quote_index == k):
                if held or wanted is not None:
                    skipped += 1
                else:
                    wanted, arrives_at = row, now + self.seen
            if can_trade and wanted is not None and now >= arrives_at:
                is_buy = orders.side[wanted] > 0
                if (size := min(self.signals.size[wanted], self.shown(k, is_buy))) > 0:
                    held = self.enter(wanted, k, is_buy, size)
                    wanted = None
        return done, skipped, int(wanted is not None), held

    def enter(self, row, k, is_buy, size):
        return {
            "row": row,
            "is_buy": is_buy,
            "k": k,
            "size": size,
            "paid": self.market(k, is_buy, size),
            "due": self.quotes.ts_event[k] + self.signals.orders.time_limit_ns[row] + self.latency,
            "rest": size,
            "money": 0.0,
            "sent": None,
        }

    def leave(self, held, k):
        """Say whether a position has left when quote k is over."""
        now, orders, row = self.quotes.ts_event[k], self.signals.orders, held["row"]
        gain = self.bid[k] - held["paid"] if held["is_buy"] else held["paid"] - self.ask[k]
        if held["sent"] is None:
            late = min(held["due"], now + self.seen)
            if gain >= orders.take_profit[row] - 1e-9:
                held["sent"], held["reason"] = late, ExitReason.TAKE_PROFIT
                if not self.costs.take_profit_is_market:
                    target = orders.take_profit[row]
                    price = held["paid"] + (target if held["is_buy"] else -target)
                    return self.fill(held, k, price)
            elif gain <= -orders.stop_loss[row] + 1e-9:
                held["sent"], held["reason"] = late, ExitReason.STOP_LOSS
            elif now >= held["due"]:
                held["sent"], held["reason"] = held["due"], ExitReason.TIME
        if held["sent"] is not None and now >= held["sent"]:
            size = min(held["rest"], self.shown(k, not held["is_buy"]))
            return self.fill(held, k, self.market(k, not held["is_buy"], size))
        return False

    def fill(self, held, k, price):
        part = min(held["rest"], self.shown(k, not held["is_buy"]))
        held["rest"] -= part
        held["money"] += part * price
        held["left"], held["got"] = k, held["money"] / held["size"]
        return held["rest"] <= 1e-9

    def nights(self, held):
        """Return what the one night of the recording pays a unit."""
        at = START_NS + 5 * NS_PER_S
        entered, left = (self.quotes.ts_event[held[name]] for name in ("k", "left"))
        if not entered < at <= left:
            return 0.0
        costs, can_trade = self.costs, self.quotes.bid <= self.quotes.ask
        last = np.flatnonzero(can_trade & (self.quotes.ts_event <= at))[-1]
        mid = (self.quotes.bid[last] + self.quotes.ask[last]) / 2
        pct = costs.financing_long_pct if held["is_buy"] else costs.financing_short_pct
        return -mid * costs.multiplier * pct / 100 / 365


def trade_by_hand(quotes, signals, costs) -> Trades:
    walk = Walk(quotes, signals, costs)
    done, skipped, unfilled, held = walk.run()
    rows = np.array([trip["row"] for trip in done], np.int64)
    side, size = signals.orders.side[rows], np.array([trip["size"] for trip in done], float)
    paid, got = (np.array([trip[name] for trip in done], float) for name in ("paid", "got"))
    entry_fees, exit_fees = (
        size * (costs.fee_bps / 10_000 * costs.multiplier * price + costs.fee_per_unit)
        for price in (paid, got)
    )
    carry = size * np.array([walk.nights(trip) for trip in done])
    still = None
    if held:
        row, fee = held["row"], held["size"] * costs.fee(held["paid"])
        still = OpenPosition(
            signals.order_id[row],
            signals.orders.side[row],
            held["k"],
            held["paid"],
            fee,
            signals.score[row],
            held["size"],
        )
    return Trades(
        order_id=signals.order_id[rows],
        side=side,
        entry_index=np.array([trip["k"] for trip in done], np.int64),
        entry_price=paid,
        exit_index=np.array([trip["left"] for trip in done], np.int64),
        exit_price=got,
        reason=np.array([trip["reason"] for trip in done], np.int8),
        entry_fees=entry_fees,
        fees=entry_fees + exit_fees,
        pnl=side * (got - paid) * size * costs.multiplier - entry_fees - exit_fees + carry,
        score=signals.score[rows],
        size=size,
        carry=carry,
        skipped_while_in_position=skipped,
        unfilled=unfilled,
        open_at_end=still,
    )


def test_a_take_profit_reached_on_a_quote_that_shows_nothing_leaves_at_the_next_in_all_engines():
    quotes = bids(100, 101.25, 100)
    shown = np.array([1.0, 0.0, 1.0])
    quotes = replace(quotes, bid_size=shown, ask_size=np.ones(3), volatility=np.zeros(3))
    order = signals_of(signal(0, take_profit=0.5, stop_loss=5.0, time_limit_s=100))
    order = replace(order, size=np.ones(1))
    costs = Costs(partial_fills=True)

    for run in (run_compiled, run_backtrader, trade_by_hand):
        trades = run(quotes, order, costs)
        assert trades.exit_index.tolist() == [2]
        assert trades.reason.tolist() == [ExitReason.TAKE_PROFIT]
